// The kernel of small.h that multiplies float16 activations as they are.
//
// A block takes a range of row tiles, a warp an equal share of the block's panels, in an order that goes through the tiles of one
// chunk of columns before the next: a warp thus keeps the activations of its chunk in registers, as it has read them. Panels come
// through a ring in shared memory, private to the warp. The bytes of weights are subnormal float16 numbers, which takes one
// instruction for two of them. Their biases a constant A multiplies once for each chunk, and the sums of panels begin with that. The
// tensor cores add up in float32; the sums of a panel are rounded to integers in a unit of the row, which warps can add up in any
// order.
//
// What does not depend on the activations is done before the kernel ahead has ended: the table, the first panels of the ring, and
// the bytes of the first one.

#ifndef COSETQ_CUDA_SMALL_HALVES_CUH_
#define COSETQ_CUDA_SMALL_HALVES_CUH_

#include "device.h"
#include "errors.h"
#include "half_operands.cuh"
#include "overlap.h"
#include "panel_ring.cuh"

namespace cosetq::cuda {
namespace {

// How a kernel goes about it: who fills a warp's ring, of how many panels, of which so many are fetched before the activations are
// there, if not all; whether the first one is decoded before that, too, for which all must have been fetched: lanes count their copies.
template <bool kByEngine, int kPanels, int kEarlyPanels = kPanels, bool kDecodeAhead = false>
struct Plan {
  static_assert(!kDecodeAhead || kEarlyPanels == kPanels);
  static constexpr bool kEngine = kByEngine, kAhead = kDecodeAhead;
  static constexpr int kDepth = kPanels, kEarly = kEarlyPanels;
};

// Shared memory of a block, by address from its begin.
template <Form kForm, int kRows, int kDepth>
struct SmallHalvesLayout {
  using Ring = PanelRing<kForm, kDepth, false>;
  static constexpr int kWarps = 16, kThreads = kWarps * 32;
  static constexpr int kSums = kPanelRows * kRows;  // of a tile: [tile of columns][register][lane]
  static constexpr int kTileBytes = (kSums + 2 * kPanelRows) * 4;
  static constexpr int kRings = TableWords(kForm) * 4;
  static constexpr int kBarriers = kRings + kWarps * Ring::kBytes;
  static constexpr int kPeaks = kBarriers + kWarps * Ring::kBarriers;
  static constexpr int kTiles = kPeaks + kRows * 4;

  static int Bytes(int tiles) { return kTiles + tiles * kTileBytes; }

  // Where the sum of a row of the tile and one of the activations is.
  __device__ __forceinline__ static int Place(int r, int row) {
    return row / 8 * 128 + (r / 8 * 2 + row % 2) * 32 + r % 8 * 4 + row % 8 / 2;
  }
};

// For batch <= kRows.
template <Form kForm, int kRows, typename Plan, Work kWork>
__global__ void __launch_bounds__(SmallHalvesLayout<kForm, kRows, 1>::kThreads, 1)
    SmallHalves(const __grid_constant__ PackedView w, const __half* a, int batch, __half* y) {
  using Layout = SmallHalvesLayout<kForm, kRows, Plan::kDepth>;
#if __CUDA_ARCH__ >= 900
  using Ring = PanelRing<kForm, Plan::kDepth, Plan::kEngine>;
#else
  using Ring = PanelRing<kForm, Plan::kDepth, false>;
#endif
  constexpr int kWarps = Layout::kWarps, kThreads = Layout::kThreads, kColumnTiles = HalfOperands<kRows>::kTiles;
  LetNextKernelBegin();
  extern __shared__ __align__(128) unsigned char shared[];
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
  for (int i = 0; i < Plan::kEarly; ++i) ring.Fetch(i);
  const int rows = share.count * kPanelRows, first_row = share.first * kPanelRows;
  auto* scales = reinterpret_cast<float*>(shared + Layout::kTiles);
  float* offsets = scales + rows;
  int* sums = reinterpret_cast<int*>(offsets + rows);  // [tile], see Place
  for (int i = threadIdx.x; i < rows; i += kThreads) {
    CopyAsync4(static_cast<uint32_t>(__cvta_generic_to_shared(scales + i)), w.scales + first_row + i);
    if (w.offsets != nullptr && first_row + i < w.rows) {
      CopyAsync4(static_cast<uint32_t>(__cvta_generic_to_shared(offsets + i)), w.offsets + first_row + i);
    } else {
      offsets[i] = 0;
    }
  }
  for (int i = threadIdx.x; i < share.count * Layout::kSums; i += kThreads) sums[i] = 0;
  if (threadIdx.x < kRows) peaks[threadIdx.x] = 0;
  table.Store(reinterpret_cast<uint32_t*>(shared));
  __syncthreads();

  const uint32_t lane_table = address + lane * 4;
  PanelCodes<kForm> codes;
  uint32_t gains[2][2];
  const auto take = [&] {
    uint32_t packed;
    ring.Take(codes, packed);
    ExpandGains(w.bytes.gains, packed, gains);
  };
  const auto decode = [&](const auto& use) { ForEachStep<kForm>(codes, lane_table, gains, w.bytes.base, use); };
  uint32_t first_steps[kPanelSteps][4];
  if (Plan::kAhead && begin < end) {
    take();
    decode([&](int step, const uint32_t u[4]) {
#pragma unroll
      for (int r = 0; r < 4; ++r) first_steps[step][r] = u[r];
    });
  }
  int tile = begin % share.count, chunk = begin / share.count, last = (end - 1) / share.count;
  asm volatile("" : "+r"(tile), "+r"(chunk), "+r"(last));  // now, while there is time
  HalfOperands<kRows> b(w, a, batch, lane);
  WaitForKernelsAhead();

  if (begin < end) {
    // Sums of all chunks are in one unit, which the peaks of all decide on.
    for (int other = last; other >= chunk; --other) {
      uint32_t largest[kColumnTiles];
      b.Load(w, other, largest);
#pragma unroll
      for (int i = 0; i < kColumnTiles; ++i) {
        if (lane % 4 == 0) atomicMax(peaks + i * 8 + lane / 4, largest[i]);
      }
    }
    b.SetOffsets(w.bytes.base);
  }
#pragma unroll
  for (int i = Plan::kEarly; i < Plan::kDepth; ++i) ring.Fetch(i);
  if (Plan::kAhead && begin < end) ring.Advance();

  typename HalfOperands<kRows>::Sums sum;
  const auto multiply = [&] {
    take();
    if constexpr (kWork == kFetch) {
      uint32_t all = gains[0][0] ^ gains[0][1] ^ gains[1][0] ^ gains[1][1];
#pragma unroll
      for (const uint32_t word : codes.words) all ^= word;
      const uint32_t none[2][2] = {};
      b.Begin(all == 0 ? none : gains, sum);
    } else {
      b.Begin(gains, sum);
      uint32_t all = 0;
      decode([&](int step, const uint32_t u[4]) {
        if constexpr (kWork == kDecode) {
          all ^= u[0] ^ u[1] ^ u[2] ^ u[3];
        } else {
          b.Multiply(u, step, sum);
        }
      });
      if (kWork == kDecode && all == 0) b.Begin(gains, sum);
    }
  };
  // The first panel, while other warps are waiting for their activations.
  if (begin < end) {
    if constexpr (Plan::kAhead) {
      b.Begin(gains, sum);
#pragma unroll
      for (int step = 0; step < kPanelSteps; ++step) b.Multiply(first_steps[step], step, sum);
    } else {
      multiply();
    }
  }
  __syncthreads();

  float units[kColumnTiles][2];  // of the rows whose sums a lane has
#pragma unroll
  for (int i = 0; i < kColumnTiles * 2; ++i) units[i / 2][i % 2] = FixedPoint(w, peaks[i / 2 * 8 + lane % 4 * 2 + i % 2]).scale;
  const uint32_t first_sum = address + static_cast<uint32_t>(reinterpret_cast<unsigned char*>(sums) - shared) + lane * 4;
  for (int item = begin; item < end;) {
    const uint32_t to = first_sum + tile * Layout::kSums * 4;
#pragma unroll
    for (int i = 0; i < kColumnTiles; ++i) {
      if (i * 8 + lane % 4 * 2 >= batch) continue;
#pragma unroll
      for (int r = 0; r < 4; ++r)
        AddShared(to + static_cast<uint32_t>(i * 4 + r) * 128, __float2int_rn(b.Sum(sum, i, r, units[i][r % 2])));
    }
    if (!Plan::kAhead || item > begin) ring.Advance();
    if (++item == end) break;
    if (++tile == share.count) {
      tile = 0;
      uint32_t largest[kColumnTiles];
      b.Load(w, ++chunk, largest);
      b.SetOffsets(w.bytes.base);
    }
    multiply();
  }
  CommitCopies();  // those of the scales, if no panel's took them along
  WaitForCopies<0>();
  __syncthreads();

  // Sixteen lanes take the rows of a tile, for one row of the activations.
  const int r = threadIdx.x % kPanelRows;
  for (int i = threadIdx.x / kPanelRows; i < share.count * kRows; i += kThreads / kPanelRows) {
    const int row = i % kRows, at = i / kRows, n = first_row + at * kPanelRows + r;
    if (row >= batch || n >= w.rows) continue;
    const float product = static_cast<float>(sums[at * Layout::kSums + Layout::Place(r, row)]) * FixedPoint(w, peaks[row]).step;
    const float value = product * scales[at * kPanelRows + r] + offsets[at * kPanelRows + r];
    y[static_cast<int64_t>(row) * w.rows + n] = __float2half_rn(value);
  }
}

// Launches the kernel over the whole device; false if the weight does not fit. Activations must be as HalfOperands wants them.
template <Form kForm, int kRows, typename Plan, Work kWork = kMultiply>
bool LaunchSmallHalves(const PackedView& w, const __half* a, int batch, __half* y, cudaStream_t stream) {
  using Layout = SmallHalvesLayout<kForm, kRows, Plan::kDepth>;
  const auto kernel = SmallHalves<kForm, kRows, Plan, kWork>;
  const Device& device = CurrentDevice();
  const int shared = Layout::Bytes((w.tiles + w.shares - 1) / w.shares);
  if (shared > device.shared_limit) return false;
  Check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared), "reserve shared memory");
  LaunchOverlapped("multiply a few rows", kernel, dim3(static_cast<unsigned>(w.shares)), Layout::kThreads, static_cast<size_t>(shared), device.hopper,
                   stream, w, a, batch, y);
  return true;
}

}  // namespace
}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_SMALL_HALVES_CUH_
