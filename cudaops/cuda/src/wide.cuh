// The kernel of wide.h.
//
// A tile is 128 rows of the weight by kColumns rows of activations, the columns of its product. Each of two warp groups
// multiplies 64 rows, a row tile per warp: lanes decode panels into the registers of A while the tensor cores work on what was
// decoded before, and B comes from a ring in shared memory that a thread of a third warp group keeps full, also with slices of the
// next tile while this one is finished. Of float16 numbers a panel has four slices (operands.cuh), of bytes it has two. With bytes,
// the slices begin with those of the corrections, which the gains alone multiply, a product per panel; their sums are in
// steps of their own. Slices are made ready, or, for narrow tiles of float16 rows, two coordinates each as they lie in the matrix; lanes then
// take longer to decode for them, but not as long as the kernel that makes slices ready.
//
// Of a divided tile both warp groups multiply the same 64 rows, each by its half of the slices, which come in turn, and what they have is
// added up in shared memory: so fewer blocks must share a tile, by way of memory, of a weight with few of them.

#ifndef COSETQ_CUDA_WIDE_CUH_
#define COSETQ_CUDA_WIDE_CUH_

#include <type_traits>
#include <utility>

#include "column_bytes.cuh"
#include "device.h"
#include "errors.h"
#include "finish.cuh"
#include "lookup.cuh"
#include "operands.cuh"
#include "overlap.h"
#include "panel_stream.cuh"
#include "pipeline.cuh"
#include "slice_ring.cuh"
#include "tiles.cuh"
#include "wide.h"

namespace cosetq::cuda {

// Slices of corrections come first, where something is missing of the centre.
__host__ __device__ constexpr bool HasCorrections(Form form, bool bytes) { return bytes && !IsColumns(form); }
__host__ __device__ constexpr int CorrectionSlices(Form form, int chunks, bool bytes) { return HasCorrections(form, bytes) ? (chunks + 3) / 4 : 0; }
__host__ __device__ constexpr int PanelSlices(bool bytes) { return bytes ? 2 : 4; }
__host__ __device__ constexpr int AllSlices(const PackedView& w, bool bytes) {
  return CorrectionSlices(w.form, w.chunks, bytes) + w.chunks * PanelSlices(bytes);
}

// One instance for float16 and one for bytes, each in a file of its own, so that they compile side by side.
// Of rows as they lie the map is used, with boxes of two coordinates of kPanelGroups groups of the rows of a tile.
template <bool kBytes>
void MultiplyWide(const PackedView& w, const WideActivations& x, const CUtensorMap& rows, const Handover& handover, const WideCut& cut,
                  const Results& y, cudaStream_t stream);

namespace {

constexpr int kWideThreads = kConsumers + kGroupThreads;

// Shared memory beside the ring and the tables.
template <bool kBytes, int kColumns>
struct WideShared {
  TileFactors<kBytes, kColumns> factors[2];
  ResultStage stage[2];
  uint64_t full[Ring<kColumns>::kStages], empty[Ring<kColumns>::kStages];
  uint64_t told[kConsumerWarps];  // that the other blocks of the cluster have left their sums
};

template <bool kBytes, int kColumns>
constexpr int WideSharedBytes(Form form) {
  return Ring<kColumns>::kStages * Ring<kColumns>::kStageBytes + TableWords(form) * 4 +
         static_cast<int>(sizeof(WideShared<kBytes, kColumns>));
}

template <Form kForm, bool kBytes, int kColumns, bool kDivided, bool kLying>
__global__ void __launch_bounds__(kWideThreads, 1)
    Wide(const __grid_constant__ PackedView w, WideActivations x, Handover handover, WideCut cut, Results y, const __grid_constant__ CUtensorMap rows) {
#if __CUDA_ARCH_FEAT_SM90_ALL
  static_assert(!kLying || !kBytes);
  constexpr int kSums = kColumns / 2, kSliceParts = kParts / PanelSlices(kBytes);
  constexpr bool kCorrections = HasCorrections(kForm, kBytes), kTable = !IsColumns(kForm);
  constexpr int kTileWarps = kDivided ? kConsumerWarps / 2 : kConsumerWarps;
  using Sum = std::conditional_t<kBytes, int, float>;
  LetNextKernelBegin();
  extern __shared__ __align__(1024) unsigned char memory[];
  Ring<kColumns> ring;
  uint32_t* table = reinterpret_cast<uint32_t*>(memory + ring.kStages * ring.kStageBytes);
  auto& shared = *reinterpret_cast<WideShared<kBytes, kColumns>*>(table + TableWords(kForm));
  ring.peers = cut.peers;
  ring.rank = static_cast<int>(blockIdx.x) % cut.peers;
  ring.stages = static_cast<uint32_t>(__cvta_generic_to_shared(memory));
  ring.full = static_cast<uint32_t>(__cvta_generic_to_shared(shared.full));
  ring.empty = static_cast<uint32_t>(__cvta_generic_to_shared(shared.empty));
  const int row_blocks = (w.tiles + kTileWarps * cut.peers - 1) / (kTileWarps * cut.peers);  // of all peers
  const int column_tiles = (y.batch + kColumns - 1) / kColumns;
  Segments segments(cut, row_blocks * column_tiles, w.chunks);
  const auto place_of = [&](const Segment& s) {
    TilePlace place(s.tile, row_blocks, column_tiles);
    place.row_block = place.row_block * cut.peers + ring.rank;
    return place;
  };
  // Where the slices of corrections begin that go with a chunk.
  const int corrections = CorrectionSlices(kForm, w.chunks, kBytes);
  const auto correction_of = [&](int chunk) { return chunk * corrections / w.chunks; };
  // What a warp group of a divided tile takes of a segment, and how many slices that is, those of the corrections first.
  const auto part_of = [&](Segment s, int group) {
    (group == 0 ? s.last : s.first) = (s.first + s.last + 1) / 2;
    return s;
  };
  const auto slices_of = [&](const Segment& s) {
    return correction_of(s.last) - correction_of(s.first) + (s.last - s.first) * PanelSlices(kBytes);
  };
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (threadIdx.x == kConsumers) {
    for (uint64_t& barrier : shared.told) InitBarrier(static_cast<uint32_t>(__cvta_generic_to_shared(&barrier)), max(cut.splits - 1, 1));
    ring.Create(kTileWarps);
  }
  if (kTable && warp < kConsumerWarps) {
    if constexpr (kBytes) {
      Table<kForm, kConsumers>(w.bytes).Store(table);
    } else {
      Table<kForm, kConsumers>(w.points).Store(table);
    }
  }
  if (cut.peers > 1 || cut.splits > 1) {
    WaitForCluster();
  } else {
    __syncthreads();
  }
  if (warp >= kConsumerWarps) {
    ShrinkRegisters<40>();
    if (threadIdx.x == kConsumers) {
      WaitForKernelsAhead();
      for (Segment s; segments.Next(s);) {
        const int column_tile = place_of(s).column_tile;
        const unsigned char* slices =
            x.slices + static_cast<int64_t>(column_tile) * AllSlices(w, kBytes) * ring.kStageBytes;
        const auto fill = [&](int first, int last) {
          if constexpr (kLying) {
            for (int i = first; i < last; ++i) ring.Fill(&rows, i / kParts * kPanelGroups, column_tile * kColumns, i % kParts * 2);
          } else {
            ring.Fill(slices + static_cast<int64_t>(first) * ring.kStageBytes, last - first);
          }
        };
        if constexpr (kDivided) {
          const Segment parts[2] = {part_of(s, 0), part_of(s, 1)};
          for (int i = 0; i < max(slices_of(parts[0]), slices_of(parts[1])); ++i) {
            for (const Segment& part : parts) {
              if (i >= slices_of(part)) continue;
              const int own = correction_of(part.last) - correction_of(part.first);  // corrections
              const int slice = i < own ? correction_of(part.first) + i : corrections + part.first * PanelSlices(kBytes) + i - own;
              fill(slice, slice + 1);
            }
          }
        } else {
          if (kCorrections) fill(correction_of(s.first), correction_of(s.last));
          fill(corrections + s.first * PanelSlices(kBytes), corrections + s.last * PanelSlices(kBytes));
        }
      }
    }
    __syncwarp();
    if (cut.peers > 1) WaitForCluster();
  } else {
    GrowRegisters<232>();
    ring.JoinConsumers();
    const int group = warp / 4;
    auto& factors = shared.factors[group];
    Segment s;
    bool more = segments.Next(s);
    int between = 0;  // slices of the other warp group that lie between those of this one
    if constexpr (kDivided) {
      between = slices_of(part_of(s, 1 - group)) - group;
      if (group == 1) ring.Advance();
      s = part_of(s, group);
    }
    TilePanels panels(w, 0);
    using Stream = std::conditional_t<kLying, OrderedStream<kForm>, PanelStream<kForm>>;
    Stream panel;
    uint32_t first_gains, next_gains;
    uint32_t correction_gains[kSliceUnits];  // of the next slice
    const auto load_gains = [&](int slice) {
#pragma unroll
      for (int unit = 0; unit < kSliceUnits; ++unit) {
        const int chunk = slice * kSliceUnits + unit;
        if (slice < correction_of(s.last) && chunk < w.chunks) correction_gains[unit] = panel.LoadGains(panels[chunk], lane);
      }
    };
    // Begins to load the first panel of a segment.
    const auto begin = [&] {
      // Warps past the last tile multiply another's weights, since all of a warp group must come along.
      const int tile = place_of(s).row_block * kTileWarps + warp % kTileWarps;
      panels = TilePanels(w, min(tile, w.tiles - 1));
      panel = Stream(panels, s.first, s.last - s.first, lane);
      first_gains = panel.LoadGains(panels[s.first], lane);
      next_gains = panel.LoadNextGains(lane);
      if constexpr (kCorrections) {
        for (int chunk = s.first + lane; chunk < s.last; chunk += 32) panel.PrefetchGains(panels[chunk]);
        load_gains(correction_of(s.first));
      }
    };
    if (more) begin();
    WaitForKernelsAhead();
    const uint32_t lane_table = static_cast<uint32_t>(__cvta_generic_to_shared(table)) + lane * 4;
    const HalfPoints points(w);
    int released = -1;  // the slot before this one, once there is one
    bool left = false;  // sums that nobody has been told of
    while (more) {
      const TilePlace place = place_of(s);
      const int first_row = place.row_block * kTileWarps * kPanelRows + (kDivided ? 0 : group * kGroupRows);
      factors.Load(w, first_row, place.column_tile, x);
      Sum sums[kSums] = {};
      PartA<kBytes> a[2] = {};
      // Multiplies by a part, and waits until the other registers of A, which the products before have read, are free.
      const auto multiply = [&](auto part) {
        constexpr int kPart = decltype(part)::value, kOfSlice = kPart % kSliceParts;
        if constexpr (kOfSlice == 0) ring.WaitForSlice();
        if constexpr (kLying) {
          ring.MultiplyTwo(a[kPart % 2], sums);
        } else {
          ring.Multiply(kOfSlice * PartUnits(kBytes), a[kPart % 2], sums);
        }
        WaitForProducts<1>();
        Keep(a[1 - kPart % 2]);
        if (kOfSlice == 0 && released >= 0) ring.Release(released);
        if constexpr (kOfSlice == kSliceParts - 1) {
          released = ring.slot;
          ring.Advance();
          if (kDivided && between-- > 0) ring.Advance();
        }
      };
      // Waits for all products.
      const auto wait = [&] {
        WaitForProducts<0>();
        Keep(sums);
        Keep(a[0]);
        Keep(a[1]);
        if (released >= 0) ring.Release(released);
        released = -1;
      };
      constexpr std::integral_constant<int, 0> kFirst;
      constexpr std::integral_constant<int, 1> kSecond;
      if constexpr (kCorrections) {
        const int first_correction = correction_of(s.first), last_correction = correction_of(s.last);
        const auto expand = [&](int slice, int part) {
#pragma unroll
          for (int k = 0; k < 2; ++k) {
            const int unit = 2 * part + k;
            uint32_t gains[2][2] = {};
            if (slice * kSliceUnits + unit < w.chunks) ExpandGains(w.bytes.gains, correction_gains[unit], gains);
            a[part][k][0] = gains[0][0];
            a[part][k][1] = gains[1][0];
            a[part][k][2] = gains[0][1];
            a[part][k][3] = gains[1][1];
          }
        };
        expand(first_correction, 0);
        for (int slice = first_correction; slice < last_correction; ++slice) {
          multiply(kFirst);
          expand(slice, 1);
          load_gains(slice + 1);
          multiply(kSecond);
          expand(slice + 1, 0);
        }
        wait();
        factors.Wait();
#pragma unroll
        for (int i = 0; i < kSums; i += 4) {
          const int2 step = *reinterpret_cast<const int2*>(factors.corrections + i / 4 * 8 + 2 * (lane % 4));
#pragma unroll
          for (int k = 0; k < 4; ++k) sums[i + k] = __mulhi(2 * sums[i + k], k % 2 == 0 ? step.x : step.y);
        }
      }
      int chunks = s.last - s.first;  // with the one that is multiplied
      if constexpr (kLying) {
        // Registers are a slice ahead of the products. A block of a panel is looked up as soon as the last slice of the one before it is made.
        HalfPoints::Block block;
        HalfPoints::Gains gains;
        points.Expand(panel.OrderGains(first_gains, lane), gains);
        points.LookUp<kForm, 0>(panel.codes, lane_table, block);
        points.Make<0>(block, gains, a[0]);
        do {
          ForEachIndex<kParts>([&](auto part) {
            constexpr int kNext = (decltype(part)::value + 1) % kParts;
            multiply(part);
            if (kNext == 0) {
              if (chunks == 1) return;
              points.Expand(panel.OrderGains(next_gains, lane), gains);
              next_gains = panel.LoadNextGains(lane);
            }
            points.Make<kNext>(block, gains, a[kNext % 2]);
            if constexpr (kNext == 1) {
              points.LookUp<kForm, 1>(panel.codes, lane_table, block);
              panel.Next(lane);
            }
            if constexpr (kNext == 3) points.LookUp<kForm, 0>(panel.codes, lane_table, block);
          });
        } while (--chunks > 0);
      } else {
        // Registers are a part ahead of the products. Look-ups of bytes are another part ahead of those.
        std::conditional_t<IsColumns(kForm), ColumnPart<kForm>, PartWords<kForm>> words;
        std::conditional_t<kBytes, uint32_t[2][2], HalfPoints::Gains> gains;
        const auto expand_gains = [&](uint32_t packed) {
          if constexpr (kBytes) {
            ExpandGains(w.bytes.gains, packed, gains);
          } else {
            points.Expand(packed, gains);
          }
        };
        expand_gains(first_gains);
        const auto look_up = [&](auto part) {
          constexpr int kPart = decltype(part)::value;
          if constexpr (IsColumns(kForm)) {
            TakePart<kForm, kPart>(panel.codes, words);
          } else if constexpr (kBytes) {
            LookUpPart<kForm, kPart>(panel.codes, lane_table, words);
          } else {
            DecodePart<kForm, kPart>(panel.codes, lane_table, points, gains, a[kPart % 2]);
          }
          panel.Refill(kPart * kPartSteps, kPart * kPartSteps + kPartSteps - 1);
        };
        const auto combine = [&](auto part) {
          constexpr int kPart = decltype(part)::value;
          if constexpr (IsColumns(kForm)) {
            CombineColumns<kForm, kPart>(words, gains, w.bytes, a[kPart % 2]);
          } else {
            CombinePart<kForm, kPart>(words, gains, w.bytes, a[kPart % 2]);
          }
        };
        look_up(kFirst);
        if constexpr (kBytes) {
          combine(kFirst);
          look_up(kSecond);
        }
        if (left) handover.Tell();
        left = false;
        do {
          ForEachIndex<kParts>([&](auto part) {
            constexpr int kPart = decltype(part)::value, kNext = (kPart + 1) % kParts, kAhead = (kNext + (kBytes ? 1 : 0)) % kParts;
            multiply(part);
            if (kNext == 0) {
              if (chunks == 1) return;
              expand_gains(next_gains);
            }
            if constexpr (kBytes) combine(std::integral_constant<int, kNext>{});
            if (kAhead == 0) {
              if (kBytes && panel.left == 0) return;
              panel.Advance(lane);
            }
            if (kNext == 0) next_gains = panel.LoadNextGains(lane);
            look_up(std::integral_constant<int, kAhead>{});
          });
        } while (--chunks > 0);
      }
      wait();

      const Segment done = s;
      more = segments.Next(s);
      if (more) begin();
      if (!kCorrections) factors.Wait();
      const bool begun = !kDivided && cut.splits == 1 && done.last < w.chunks;  // for another block to finish
      constexpr int kPieces = kColumns / kPieceColumns, kOwners = kDivided ? 2 : 1;  // of the block
      const int rank = begun ? -1 : cut.splits > 1 ? ClusterRank() : 0;
      const Pieces has(kPieces, kDivided ? group : 0, kOwners), own(kPieces, kDivided ? group * cut.splits + rank : rank, kOwners * cut.splits);
      if (kDivided) AddUpGroups(reinterpret_cast<uint4*>(memory), sums, has);
      if (begun || cut.splits > 1) handover.Leave(sums, has, own);
      if (begun) {
        left = true;
        WaitForGroup();  // before the factors of the next tile come
        continue;
      }
      const int block = static_cast<int>(blockIdx.x);
      if (cut.splits > 1) {
        const auto told = static_cast<uint32_t>(__cvta_generic_to_shared(shared.told + warp));
        handover.TellCluster(told, cut.splits, rank);
        WaitInCluster(told, 0);
        for (int i = 1; i < cut.splits; ++i) handover.Add(block ^ i, sums, own);
      } else if (!kDivided) {
        // Those that begin or go on with the tile, backwards.
        int team = block / cut.peers;
        while (done.first > 0 && Segments::First(cut, w.chunks, team) > done.tile * w.chunks) {
          const int other = --team * cut.peers + ring.rank;
          handover.Wait(other);
          handover.Add(other, sums, own);
        }
      }
      StoreResults<kBytes, kColumns>(sums, factors, own, first_row, place.column_tile, y, shared.stage[group]);
    }
    if (left) handover.Tell();
    if (cut.peers > 1) WaitForCluster();  // which may still fetch for this block
  }
#endif
}

template <Form kForm, bool kBytes, int kColumns, bool kDivided, bool kLying>
void LaunchWide(const PackedView& w, const WideActivations& x, const CUtensorMap& rows, const Handover& handover, const WideCut& cut,
                const Results& y, cudaStream_t stream) {
  const auto kernel = Wide<kForm, kBytes, kColumns, kDivided, kLying>;
  constexpr int kShared = WideSharedBytes<kBytes, kColumns>(kForm);
  AllowSharedMemory(kernel, kShared);
  LaunchClusters("multiply a wide batch", kernel, dim3(static_cast<unsigned>(cut.blocks)), kWideThreads, kShared,
                 static_cast<unsigned>(cut.splits * cut.peers), true, stream, w, x, handover, cut, y, rows);
}

template <Form kForm, bool kBytes>
void LaunchWide(const PackedView& w, const WideActivations& x, const CUtensorMap& rows, const Handover& handover, const WideCut& cut,
                const Results& y, cudaStream_t stream) {
  const auto launch = [&](auto columns) {
    constexpr int kColumns = decltype(columns)::value;
    if constexpr (!kBytes) {
      if (cut.lying)
        return (cut.divided ? LaunchWide<kForm, kBytes, kColumns, true, true> : LaunchWide<kForm, kBytes, kColumns, false, true>)(w, x, rows, handover, cut, y, stream);
    }
    if constexpr (!IsColumns(kForm)) {
      if (cut.divided) return LaunchWide<kForm, kBytes, kColumns, true, false>(w, x, rows, handover, cut, y, stream);
    }
    LaunchWide<kForm, kBytes, kColumns, false, false>(w, x, rows, handover, cut, y, stream);
  };
  if (cut.columns == 256) return LaunchWide<kForm, kBytes, 256, false, false>(w, x, rows, handover, cut, y, stream);
  cut.columns == 128 ? launch(std::integral_constant<int, 128>()) : launch(std::integral_constant<int, 64>());
}

}  // namespace

template <bool kBytes>
void MultiplyWide(const PackedView& w, const WideActivations& x, const CUtensorMap& rows, const Handover& handover, const WideCut& cut,
                  const Results& y, cudaStream_t stream) {
  switch (w.form) {
    case Form::kNibbles:
    case Form::kTwoBits:
      if constexpr (kBytes) {
        return w.form == Form::kNibbles ? LaunchWide<Form::kNibbles, kBytes>(w, x, rows, handover, cut, y, stream)
                                        : LaunchWide<Form::kTwoBits, kBytes>(w, x, rows, handover, cut, y, stream);
      } else {
        throw Error("float16 activations have another kernel with weights of single columns");
      }
    case Form::kOneByte:
      return LaunchWide<Form::kOneByte, kBytes>(w, x, rows, handover, cut, y, stream);
    case Form::kTwoByte:
      return LaunchWide<Form::kTwoByte, kBytes>(w, x, rows, handover, cut, y, stream);
    default:
      return LaunchWide<Form::kNibbleByte, kBytes>(w, x, rows, handover, cut, y, stream);
  }
}

#define COSETQ_MULTIPLY_WIDE(bytes) \
  template void MultiplyWide<bytes>(const PackedView&, const WideActivations&, const CUtensorMap&, const Handover&, const WideCut&, const Results&, \
                                    cudaStream_t)
extern COSETQ_MULTIPLY_WIDE(false);
extern COSETQ_MULTIPLY_WIDE(true);

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_WIDE_CUH_
