// The kernel of small.h that makes bytes of the activations.
//
// A block takes a range of row tiles, a warp an equal share of the block's panels, in an order that goes through the tiles of one
// chunk of columns before the next: a warp thus keeps the activations of its chunk in registers, and the warps need not wait for
// each other. Panels come through a ring in shared memory, private to the warp. Sums are integers, so they can be added in any order;
// those of high and low bytes are added up for each panel, and cut to 32 bits for all of its row.
//
// What does not depend on the activations is done before the kernel ahead has ended: the table, the first panels of the ring, and
// the bytes of one or two of them in registers. Other panels of the ring are asked for behind the activations; or the copy engine fetches all,
// one after the other until activations are asked for, and the first is decoded while these are on their way. A single row of
// activations every block makes bytes of by itself, since a kernel of its own for that would take longer, and a few rows if they are not
// long; others are prepared by one.

#ifndef COSETQ_CUDA_SMALL_BYTES_CUH_
#define COSETQ_CUDA_SMALL_BYTES_CUH_

#include "byte_operands.cuh"
#include "device.h"
#include "errors.h"
#include "operands.cuh"
#include "panel_ring.cuh"
#include "share_rows.cuh"
#include "small.h"

namespace cosetq::cuda {

namespace {

// Sums of a tile of rows: [pair of tiles of columns][register][lane], or of one tile [row][row of the activations]: high and low bytes
// added up.
template <int kRoom>
struct Sums {
  static constexpr int kPairs = kRoom == 16 ? 2 : 1;
  static constexpr int kWords = kRoom == 1 ? 16 : kRoom == 4 ? 64 : 128 * kPairs;

  // Where the sum of a row of the tile and one of the activations is.
  __device__ __forceinline__ static int Place(int r, int row) {
    if constexpr (kRoom == 1) return r;
    if constexpr (kRoom == 4) return r * 4 + row;
    return row / 8 * 128 + (r / 8 * 2 + row % 2) * 32 + r % 8 * 4 + row % 8 / 2;
  }
};

// Shared memory of a block, by address from its begin.
template <Form kForm, int kRoom, bool kOwn, int kWarps, int kDepth, bool kPaced>
struct SmallBytesLayout {
  using Ring = PanelRing<kForm, kDepth, false>;
  static constexpr int kTileBytes = ShareRows<Sums<kRoom>::kWords>::kTileBytes;
  static constexpr int kRings = TableWords(kForm) * 4;
  static constexpr int kBarriers = kRings + kWarps * Ring::kBytes;
  static constexpr int kEnd = kBarriers + (kPaced ? kWarps * Ring::kBarriers : 0);  // a barrier: the kernels ahead have ended
  static constexpr int kStages = (kEnd + (kPaced ? 8 : 0) + 15) / 16 * 16;
  static constexpr int kPeaks = kStages + (kOwn ? kWarps * kRoom * ChunkRow::kOffset : 0);
  static constexpr int kTiles = (kPeaks + kRoom * 4 + 15) / 16 * 16;

  // After the tiles, the activations as they come.
  __host__ __device__ static int Activations(int tiles) { return (kTiles + tiles * kTileBytes + 15) / 16 * 16; }
  static int Bytes(int tiles, int activations) { return Activations(tiles) + (kOwn ? activations : 0); }
};

template <Form kForm, int kRoom, bool kOwn, int kWarps, int kDepth, int kEarly, int kDecoded, bool kPaced, Work kWork, typename T>
__global__ void __launch_bounds__(kWarps * 32, 1)
    SmallBytes(const __grid_constant__ PackedView w, const T* a, const __grid_constant__ Prepared prepared, int batch, void* y, bool half_y) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
  if constexpr (IsColumns(kForm)) return;  // weights of single columns have such forms on Hopper alone
#endif
  using Layout = SmallBytesLayout<kForm, kRoom, kOwn, kWarps, kDepth, kPaced>;
#if __CUDA_ARCH__ >= 900
  constexpr bool kInPace = kPaced;
#else
  constexpr bool kInPace = false;
#endif
  using Ring = PanelRing<kForm, kDepth, kInPace>;
  constexpr int kThreads = kWarps * 32, kColumnTiles = ColumnTiles(kRoom);
  LetNextKernelBegin();
  extern __shared__ __align__(1024) unsigned char shared[];
  auto* peaks = reinterpret_cast<uint32_t*>(shared + Layout::kPeaks);
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0), lane = threadIdx.x % 32;

  // The loads first, that they are all on their way at the same time; the table's, which is waited for soon, before the panels'.
  Table<kForm, kThreads> table(w);
  const Share share(w, blockIdx.x);
  const int items = share.count * w.chunks, begin = Part(items, warp, kWarps), end = Part(items, warp + 1, kWarps);
  Ring ring(address + Layout::kRings + warp * Ring::kBytes, address + Layout::kBarriers + warp * Ring::kBarriers,
            PanelRun<kForm>(w.panels + (static_cast<int64_t>(share.first) * w.chunks + begin) * Ring::kSlot, end - begin), lane);
#pragma unroll
  for (int i = 0; i < kEarly; ++i) ring.Fetch(i);
  const ShareRows<Sums<kRoom>::kWords> of_share(share, shared + Layout::kTiles);
  of_share.Begin(w, kThreads);
  T* const own = reinterpret_cast<T*>(shared + Layout::Activations(share.count));  // activations
  if (threadIdx.x < kRoom) peaks[threadIdx.x] = 0;
  if (kInPace && threadIdx.x == 0) InitBarrier(address + Layout::kEnd, 1);
  table.Store(reinterpret_cast<uint32_t*>(shared));
  __syncthreads();

  const uint32_t lane_table = address + lane * 4;
  PanelCodes<kForm> codes;
  uint32_t gains[2][2];
  const auto take = [&] {
    ring.Take(w.bytes, codes, gains);
    if (!kInPace) ring.Advance();
  };
  uint32_t first_gains[kDecoded + 1][4], first_steps[kDecoded + 1][kPanelSteps][4];
  const auto decode_ahead = [&](auto index) {
    constexpr int kPanel = decltype(index)::value;
    auto& of = first_gains[kPanel];
    of[0] = gains[0][0], of[1] = gains[1][0], of[2] = gains[0][1], of[3] = gains[1][1];
    ForEachStep<kForm>(codes, lane_table, gains, w.bytes, [&](auto step, const uint32_t of[4]) {
#pragma unroll
      for (int r = 0; r < 4; ++r) first_steps[kPanel][step()][r] = of[r];
    });
  };
  int asked = kEarly;
  if constexpr (kInPace) {
    asked = ring.FetchUntilEnd(warp == 0, address + Layout::kEnd);
  } else {
    ForEachIndex<kDecoded>([&](auto index) {
      constexpr int kPanel = decltype(index)::value;
      if (begin + kPanel >= end) return;
      ring.template TakeAhead<kPanel, kEarly>(w.bytes, codes, gains);
      decode_ahead(index);
    });
    WaitForKernelsAhead();
  }

  int tile = begin % share.count, chunk = begin / share.count;
  Operands<kForm, kRoom> b;
  const auto fetch_late = [&] {
#pragma unroll
    for (int i = kEarly; i < kDepth; ++i) {
      if (!kInPace || i >= asked) ring.Fetch(i);
    }
    if constexpr (kInPace) {
      if (begin < end) {
        ring.Take(w.bytes, codes, gains);
        decode_ahead(std::integral_constant<int, 0>());
      }
    } else {
      __syncwarp();
#pragma unroll
      for (int i = 0; i < kDecoded; ++i) ring.Advance();
    }
  };
  const auto make = [&] {
    const uint32_t stage = address + Layout::kStages + warp * kRoom * ChunkRow::kOffset;
    __syncwarp();
    for (int row = 0; row < (kRoom == 1 ? 1 : batch); ++row) {
      float x[kGroup];
      LoadGroup(w, own + row * w.cols, chunk * kPanelGroups + lane, x);
      const int offset = StoreGroup<kForm>(w.bytes, x, FloatMagnitude(peaks[row], T()), lane, stage + row * ChunkRow::kOffset);
      if (kRoom == 1 || lane % 4 == row) b.offsets[0][0] = offset;
    }
    __syncwarp();
    b.Collect(stage, batch, lane);
  };
  if constexpr (kOwn) {
    CopyRows(a, kRoom == 1 ? 1 : batch, w.cols, threadIdx.x, kThreads, own, peaks, fetch_late);
    __syncthreads();
    if (begin < end) make();
  } else {
    if (begin < end) b.Load(prepared, chunk, batch, lane);
    fetch_late();
    if (threadIdx.x < batch) peaks[threadIdx.x] = __ldcg(prepared.peaks + threadIdx.x);
  }

  // The sum of a panel takes 31 bits (weight.cu), those of all chunks must too.
  const int shift = 32 - __clz(w.chunks);
  const uint32_t round = 1u << shift >> 1;
  const uint32_t first_sum = of_share.SumsAddress() + (kRoom == 1 ? lane / 4 : lane) * 4;
  uint32_t to = first_sum + tile * Sums<kRoom>::kWords * 4;
  bool turned = false;  // to another chunk
  // Sums of a panel: of few rows those of even steps, and those of odd ones after what goes with the gains, so that products wait less for
  // each other.
  constexpr int kChains = IsColumns(kForm) && kRoom <= 4 ? 2 : 1;
  using PanelSums = int[kColumnTiles][kChains][4];
  const auto add = [&](const PanelSums& sums) {
    const auto sum = [&](int i, int r) { return sums[i][0][r] + (kChains == 2 ? sums[i][kChains - 1][r] : 0); };
    const auto merge = [&](int high, int low, int offset) {  // modulo 2^32, where the result fits again
      const uint32_t more = IsColumns(kForm) ? round : static_cast<uint32_t>(offset) + round;
      return static_cast<int>(static_cast<uint32_t>(high) * 256 + static_cast<uint32_t>(low) + more) >> shift;
    };
    if constexpr (kRoom == 1) {
      if (lane % 4 == 0) {
        AddShared(to, merge(sum(0, 0), sum(0, 1), b.offsets[0][0]));
        AddShared(to + 32, merge(sum(0, 2), sum(0, 3), b.offsets[0][0]));
      }
    } else if constexpr (kRoom == 4) {
      AddShared(to, merge(sum(0, 0), sum(0, 1), b.offsets[0][0]));
      AddShared(to + 128, merge(sum(0, 2), sum(0, 3), b.offsets[0][0]));
    } else {
#pragma unroll
      for (int i = 0; i < kColumnTiles; i += 2) {
#pragma unroll
        for (int r = 0; r < 4; ++r) AddShared(to + static_cast<uint32_t>(i * 2 + r) * 128, merge(sum(i, r), sum(i + 1, r), b.offsets[i / 2][r % 2]));
      }
    }
    to += Sums<kRoom>::kWords * 4;
    if (++tile == share.count) {
      tile = 0;
      ++chunk;
      to = first_sum;
      turned = true;
    }
  };
  const auto multiply = [&](const uint32_t of[4], int step, PanelSums& sums) {
#pragma unroll
    for (int i = 0; i < kColumnTiles; ++i) {
      const uint4& v = b.data[step / 2][i];
      const uint32_t b0 = step % 2 == 0 ? v.x : v.z, b1 = step % 2 == 0 ? v.y : v.w;
      kChains == 2 && step == 0 ? Multiply(sums[i][0], of, b0, b1) : MultiplyAdd(sums[i][step % kChains], of, b0, b1);
    }
  };
  const auto begin_sum = [&](const uint32_t (&gain_bytes)[4], PanelSums& sums) {
#pragma unroll
    for (int i = 0; i < kColumnTiles; ++i) MultiplyGains<kForm>(sums[i][kChains - 1], gain_bytes, b.rests[i]);
  };
  int item = begin;
#pragma unroll
  for (int i = 0; i < kDecoded; ++i) {
    if (item == end) break;
    if (turned) {
      turned = false;
      if constexpr (kOwn) make();
    }
    PanelSums sums;
    begin_sum(first_gains[i], sums);
#pragma unroll
    for (int step = 0; step < kPanelSteps; ++step) multiply(first_steps[i][step], step, sums);
    add(sums);
    if (kInPace) ring.Advance();
    ++item;
  }
  for (; item < end; ++item) {
    if (turned) {
      turned = false;
      if constexpr (kOwn) {
        make();
      } else {
        b.Load(prepared, chunk, batch, lane);
      }
    }
    take();
    PanelSums sums;
    if constexpr (kWork != kMultiply) {
#pragma unroll
      for (int i = 0; i < kColumnTiles * kChains * 4; ++i) sums[i / 4 / kChains][i / 4 % kChains][i % 4] = 0;
    }
    if constexpr (kWork == kFetch) {
#pragma unroll
      for (int i = 0; i < PanelVectors(kForm) * 4; ++i) sums[0][0][i % 4] ^= static_cast<int>(codes.words[i] ^ gains[0][0]);
    } else {
      const uint32_t gain_bytes[4] = {gains[0][0], gains[1][0], gains[0][1], gains[1][1]};
      begin_sum(gain_bytes, sums);
      ForEachStep<kForm>(codes, lane_table, gains, w.bytes, [&](auto step, const uint32_t of[4]) {
        if constexpr (kWork == kDecode) {
#pragma unroll
          for (int i = 0; i < 4; ++i) sums[0][0][i] ^= static_cast<int>(of[i]);
        } else {
          multiply(of, step(), sums);
        }
      });
    }
    add(sums);
    if (kInPace) ring.Advance();
  }
  CommitCopies();  // those of the scales, if no panel's took them along
  WaitForCopies<0>();
  __syncthreads();

  of_share.template ForEachResult<kRoom, kThreads>(w, batch, [&](int at, int r, int row, int n, const auto& finish) {
    const int sum = of_share.Sums(at)[Sums<kRoom>::Place(r, row)];
    const float step = StepOf(kOwn ? FloatMagnitude(peaks[row], T()) : peaks[row]);
    const float value = finish(static_cast<float>(sum) * static_cast<float>(1 << shift) * (step * ColumnUnit(kForm, r / 8)));
    const int64_t out = static_cast<int64_t>(row) * w.rows + n;
    if (half_y) {
      static_cast<__half*>(y)[out] = __float2half_rn(value);
    } else {
      static_cast<float*>(y)[out] = value;
    }
  });
}

// Launches the kernels over the whole device; false if the weight does not fit. Of a warp's ring, kEarly panels are
// fetched before the activations are there, or as many as come one after the other, and kDecoded of these decoded.
template <Form kForm, int kRoom, bool kOwn, int kWarps, int kDepth, int kEarly = kDepth, int kDecoded = kOwn && kEarly == kDepth, bool kPaced = false,
          Work kWork = kMultiply, typename T>
bool LaunchSmallBytes(const PackedView& w, const T* a, int batch, void* workspace, void* y, bool half_y, cudaStream_t stream) {
  static_assert(!kPaced || (kEarly == 1 && kDecoded == 1));
  using Own = std::conditional_t<kOwn, T, float>;  // prepared ones come in bytes, whatever they had been
  const auto kernel = SmallBytes<kForm, kRoom, kOwn, kWarps, kDepth, kEarly, kDecoded, kPaced, kWork, Own>;
  const Device& device = CurrentDevice();
  const int shared = SmallBytesLayout<kForm, kRoom, kOwn, kWarps, kDepth, kPaced>::Bytes((w.tiles + w.shares - 1) / w.shares, batch * w.cols * static_cast<int>(sizeof(T)));
  if (shared > device.shared_limit) return false;
  ReserveSharedMemory(kernel);
  const Prepared prepared(workspace, w, batch);
  if constexpr (!kOwn) {
    const size_t copy = w.cols <= kKeptRow ? static_cast<size_t>(w.cols) * sizeof(T) : 0;
    LaunchOverlapped("prepare activations", Prepare<T>, dim3(static_cast<unsigned>((w.chunks + 3) / 4), static_cast<unsigned>(batch)), kPrepareThreads, copy,
                     device.hopper, stream, w, a, prepared, batch);
  }
  LaunchOverlapped("multiply a small batch", kernel, dim3(static_cast<unsigned>(w.shares)), kWarps * 32, static_cast<size_t>(shared), device.hopper,
                   stream, w, reinterpret_cast<const Own*>(a), prepared, batch, y, half_y);
  return true;
}

}  // namespace
}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_SMALL_BYTES_CUH_
