// The kernel of columns_many.h.
//
// A tile is 128 rows of the weight by kColumns rows of activations, the columns of its product. Each of two warp groups multiplies 64
// rows, a row tile per warp. A slice is 64 groups of one coordinate: what two panels have words of, and what the copy engine fetches as it
// lies in the matrix of activations, into a ring in shared memory that a thread of a third warp group keeps full, also with slices of
// the next tile while this one is finished. Lanes make float16 numbers of the words of the next slice, in registers, while the tensor
// cores multiply by this one.

#ifndef COSETQ_CUDA_COLUMNS_MANY_CUH_
#define COSETQ_CUDA_COLUMNS_MANY_CUH_

#include "column_halves.cuh"
#include "columns_many.h"
#include "device.h"
#include "errors.h"
#include "finish.cuh"
#include "overlap.h"
#include "pipeline.cuh"
#include "slice_ring.cuh"
#include "tiles.cuh"

namespace cosetq::cuda {

constexpr int kPairPanels = 2, kPairGroups = kPairPanels * kPanelGroups;  // of a slice

// How tiles are dealt to blocks: those of a cluster share a tile, each with a part of the pairs of panels, or they take the same
// columns of neighbouring rows, and fetch slices together.
struct ManyCut {
  int columns, splits, peers, blocks;
};

namespace {

constexpr int kManyThreads = kConsumers + kGroupThreads;

template <int kColumns>
struct ManyRing : SliceRing<kColumns, kColumns == 256 ? 6 : kColumns == 128 ? 8 : 16> {
  using Base = SliceRing<kColumns, kColumns == 256 ? 6 : kColumns == 128 ? 8 : 16>;
  using Base::empty, Base::full, Base::kStageBytes, Base::peers, Base::phase, Base::rank, Base::slot, Base::stages;

  // Fetches the slice of a coordinate of groups from first on, of rows from row on.
  __device__ __forceinline__ void Fill(const CUtensorMap* rows, int first, int coordinate, int row) {
    Wait(empty + slot * 8, phase ^ 1);  // at once the first time round
    const uint32_t to = stages + slot * kStageBytes, barrier = full + slot * 8;
    Expect(kStageBytes, barrier);
    const int columns = kColumns / peers * rank;
    if (peers == 1) {
      FetchBox(to, rows, first, row, coordinate, barrier);
    } else {
      FetchBoxForTwo(to + columns * kSliceBytes, rows, first, row + columns, coordinate, barrier);
    }
    Base::Advance();
  }

  // To be called by warps that are to release slots: a lane for each block.
  __device__ __forceinline__ void JoinConsumers() {
    const int lane = threadIdx.x % 32;
    tells_ = lane < peers;
    told_ = peers > 1 && tells_ ? InBlock(empty, lane) : empty;
  }
  __device__ __forceinline__ void Release(int of) const {
    if (!tells_) return;
    if (peers > 1) {
      ArriveInCluster(told_ + of * 8);
    } else {
      Arrive(told_ + of * 8);
    }
  }

 private:
  bool tells_ = false;
  uint32_t told_ = 0;
};

// Pairs of panels on their way through a lane's registers: kVectors of the vectors that it has of each.
template <Form kForm, int kVectors>
class PairStream {
 public:
  PairStream() = default;
  __device__ __forceinline__ PairStream(const TilePanels& panels, int chunks, int first, int last, int lane)
      : stride_(panels.stride), chunk_(first * kPairPanels), chunks_(chunks), left_(last - first) {
    at_ = panels[chunk_] + lane * 16;
    gains_at_ = PanelVectors(kForm) * 512 - lane * 12;
    Second();
#pragma unroll
    for (int v = 0; v < kVectors; ++v) Load(v, v);
    LoadGains();
  }

  // The gains of the pair whose first slice is to be decoded next.
  __device__ __forceinline__ void Expand(const typename ColumnGains<kForm>::Table& table, ColumnGains<kForm> (&gains)[kPairPanels]) const {
#pragma unroll
    for (int i = 0; i < kPairPanels; ++i) gains[i].Expand(table, gains_[i]);
  }

  // Decodes the slice of a coordinate, and makes room of what is used up.
  template <int kCoordinate>
  __device__ __forceinline__ void Decode(const ColumnGains<kForm> (&gains)[kPairPanels], uint32_t (&a)[kSliceUnits][4]) {
    constexpr int kOfVector = VectorCoordinates(kForm), kVector = kCoordinate / kOfVector;
#pragma unroll
    for (int i = 0; i < kPairPanels; ++i) {
#pragma unroll
      for (int s = 0; s < 2; ++s) gains[i].Decode(vectors_[kVector % kVectors][i], kCoordinate, s, a[2 * i + s]);
    }
    if constexpr (kCoordinate % kOfVector == kOfVector - 1) {
      constexpr int kNext = (kVector + kVectors) % PanelVectors(kForm);
      if constexpr (kNext == 0) {  // of the next pair from now on; the last one is loaded again, for nobody
        if (--left_ > 0) {
          chunk_ += kPairPanels;
          at_ += int64_t{kPairPanels} * stride_;
        }
        Second();
        LoadGains();
      }
      Load(kVector % kVectors, kNext);
    }
  }

 private:
  __device__ __forceinline__ void Second() { second_ = chunk_ + 1 < chunks_ ? stride_ : 0; }
  __device__ __forceinline__ void Load(int to, int v) {
    vectors_[to][0] = __ldg(reinterpret_cast<const uint4*>(at_ + v * 512));
    vectors_[to][1] = __ldg(reinterpret_cast<const uint4*>(at_ + second_ + v * 512));
  }
  __device__ __forceinline__ void LoadGains() {
    gains_[0] = __ldg(reinterpret_cast<const uint32_t*>(at_ + gains_at_));
    gains_[1] = __ldg(reinterpret_cast<const uint32_t*>(at_ + second_ + gains_at_));
  }

  uint4 vectors_[kVectors][kPairPanels];
  uint32_t gains_[kPairPanels];
  const unsigned char* at_;
  int gains_at_, stride_, second_, chunk_, chunks_, left_;
};

template <int kColumns>
struct ManyShared {
  TileFactors<false, kColumns> factors[2];
  ResultStage stage[2];
  uint64_t full[ManyRing<kColumns>::kStages], empty[ManyRing<kColumns>::kStages];
  uint64_t told;  // that sums of the other blocks of the cluster are there
};

template <int kColumns>
constexpr int ManySharedBytes(int splits) {
  constexpr int kPad = 1024;
  const int sums = kColumns * kWideRows * 4 / splits * (splits - 1);
  const int shared = (static_cast<int>(sizeof(ManyShared<kColumns>)) + kPad - 1) / kPad * kPad;
  return ManyRing<kColumns>::kStages * ManyRing<kColumns>::kStageBytes + shared + sums;
}

template <Form kForm, int kColumns>
__global__ void __launch_bounds__(kManyThreads, 1)
    Many(const __grid_constant__ PackedView w, const __grid_constant__ CUtensorMap rows, const float* steps, ManyCut cut, Results y) {
#if __CUDA_ARCH_FEAT_SM90_ALL
  constexpr int kSums = kColumns / 2;
  LetNextKernelBegin();
  extern __shared__ __align__(1024) unsigned char memory[];
  ManyRing<kColumns> ring;
  auto& shared = *reinterpret_cast<ManyShared<kColumns>*>(memory + ring.kStages * ring.kStageBytes);
  const auto address = [](const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); };
  const int rank = cut.peers > 1 || cut.splits > 1 ? ClusterRank() : 0;
  ring.peers = cut.peers;
  ring.rank = cut.peers > 1 ? rank : 0;
  ring.stages = address(memory);
  ring.full = address(shared.full);
  ring.empty = address(shared.empty);
  const int row_blocks = (w.tiles + kConsumerWarps * cut.peers - 1) / (kConsumerWarps * cut.peers);  // of all peers
  const int column_tiles = (y.batch + kColumns - 1) / kColumns, tiles = row_blocks * column_tiles;
  const int pairs = (w.chunks + kPairPanels - 1) / kPairPanels;
  const int part = cut.splits > 1 ? rank : 0, first_pair = Part(pairs, part, cut.splits), last_pair = Part(pairs, part + 1, cut.splits);
  const int together = cut.peers * cut.splits, first_tile = static_cast<int>(blockIdx.x) / together, teams = cut.blocks / together;
  const auto place_of = [&](int tile) {
    TilePlace place(tile, row_blocks, column_tiles);
    place.row_block = place.row_block * cut.peers + ring.rank;
    return place;
  };
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (threadIdx.x == kConsumers) {
    InitBarrier(address(&shared.told), 1);
    ring.Create();
    if (cut.splits > 1) Expect(kColumns * kWideRows * 4 / cut.splits * (cut.splits - 1), address(&shared.told));
  }
  if (together > 1) {
    WaitForCluster();
  } else {
    __syncthreads();
  }
  if (warp >= kConsumerWarps) {
    ShrinkRegisters<40>();
    if (threadIdx.x == kConsumers) {
      WaitForKernelsAhead();
      for (int tile = first_tile; tile < tiles; tile += teams) {
        const int row = place_of(tile).column_tile * kColumns;
        for (int pair = first_pair; pair < last_pair; ++pair)
          for (int j = 0; j < kGroup; ++j) ring.Fill(&rows, pair * kPairGroups, j, row);
      }
    }
    __syncwarp();
    if (cut.peers > 1) WaitForCluster();
  } else {
    GrowRegisters<232>();
    ring.JoinConsumers();
    const int group = warp / 4;
    auto& factors = shared.factors[group];
    PairStream<kForm, PanelVectors(kForm) / (kColumns == 256 ? 2 : 1)> stream;
    ColumnGains<kForm> gains[kPairPanels];
    const typename ColumnGains<kForm>::Table table(w);
    const auto begin = [&](int tile) {
      // Warps past the last tile multiply another's weights, since all of a warp group must come along.
      const int row_tile = min(place_of(tile).row_block * kConsumerWarps + warp, w.tiles - 1);
      stream = {TilePanels(w, row_tile), w.chunks, first_pair, last_pair, lane};
    };
    if (first_tile < tiles) begin(first_tile);
    WaitForKernelsAhead();
    int released = -1;  // the slot before this one, once there is one
    for (int tile = first_tile; tile < tiles; tile += teams) {
      const TilePlace place = place_of(tile);
      const int first_row = place.row_block * kWideRows + group * kGroupRows;
      {
        const int thread = threadIdx.x % kGroupThreads, column = place.column_tile * kColumns;
        for (int i = thread; i < kColumns; i += kGroupThreads) factors.steps[i] = steps == nullptr ? 1 : __ldcg(steps + min(column + i, y.batch - 1));
        if (thread < kGroupRows) {
          const int row = min(first_row + thread, w.rows - 1);
          factors.scales[thread] = w.scales[row] * kHalvesScale;
          factors.offsets[thread] = w.offsets == nullptr ? 0 : w.offsets[row];
        }
      }
      float sums[kSums] = {};
      uint32_t a[2][kSliceUnits][4];
      stream.Expand(table, gains);
      stream.template Decode<0>(gains, a[0]);
      int left = last_pair - first_pair;
      do {
        ForEachIndex<kGroup>([&](auto coordinate) {
          constexpr int kThis = decltype(coordinate)::value, kNext = (kThis + 1) % kGroup;
          ring.WaitForSlice();
          ring.Multiply(0, a[kThis % 2], sums);
          WaitForProducts<1>();
          Keep(a[kNext % 2]);
          if (released >= 0) ring.Release(released);
          released = ring.slot;
          ring.Advance();
          if (kNext == 0) {
            if (left == 1) return;
            stream.Expand(table, gains);
          }
          stream.template Decode<kNext>(gains, a[kNext % 2]);
        });
      } while (--left > 0);
      WaitForProducts<0>();
      Keep(sums);
      Keep(a[0]);
      Keep(a[1]);
      ring.Release(released);
      released = -1;
      if (tile + teams < tiles) begin(tile + teams);
      WaitForGroup();  // for the factors
      const Pieces own(kColumns / kPieceColumns, cut.splits > 1 ? rank : 0, cut.splits);
      if (cut.splits > 1) {
        // To each block of the cluster what it owns, [sender but itself][sum][thread].
        const int own_sums = kSums / 4 / cut.splits;
        uint4* const received = reinterpret_cast<uint4*>(memory + ManySharedBytes<kColumns>(1));
#pragma unroll
        for (int i = 0; i < kSums / 4; ++i) {
          const int to = i / own_sums;
          if (to == rank) continue;
          const int from = rank - (rank > to ? 1 : 0);
          SendAsync(InBlock(address(received + (from * own_sums + i % own_sums) * kConsumers + threadIdx.x), to), &sums[4 * i],
                    InBlock(address(&shared.told), to));
        }
        WaitInCluster(address(&shared.told), 0);
#pragma unroll
        for (int i = 0; i < kSums / 4; ++i) {
          if (i / own_sums != rank) continue;
          for (int from = 0; from < cut.splits - 1; ++from)
            AddWords(received[(from * own_sums + i % own_sums) * kConsumers + threadIdx.x], &sums[4 * i]);
        }
      }
      StoreResults<false, kColumns>(sums, factors, own, first_row, place.column_tile, y, shared.stage[group]);
      WaitForGroup();  // before the factors of the next tile come
    }
    if (cut.peers > 1) WaitForCluster();  // which may still fetch for this block
  }
#endif
}

}  // namespace
}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_COLUMNS_MANY_CUH_
