// The kernel of small_lanes.h, whose lanes make ready the activations that they have read.
//
// A block takes a range of row tiles, a warp an equal share of the block's panels, in an order that goes through the tiles of one
// chunk of columns before the next: a warp thus keeps the activations of its chunk in registers. Panels come through a ring in shared
// memory, private to the warp. Activations are multiplied as they are, by weights whose bytes are subnormal float16 numbers, which
// takes one instruction for two of them, or become integers of two bytes, which takes no such instructions but some for each chunk.
// The biases of weights a constant A multiplies once for each chunk, and the sums of panels begin with that; single columns have none.
// The sums of a panel are rounded to integers in a unit of the row, which warps can add up in any order.
//
// What does not depend on the activations is done before the kernel ahead has ended, or while they are on their way: the table, the first
// panels of the ring, and the bytes of the first one.

#ifndef COSETQ_CUDA_SMALL_LANES_CUH_
#define COSETQ_CUDA_SMALL_LANES_CUH_

#include "byte_lanes.cuh"
#include "device.h"
#include "errors.h"
#include "half_operands.cuh"
#include "overlap.h"
#include "panel_ring.cuh"
#include "share_rows.cuh"
#include "small_lanes.h"

namespace cosetq::cuda {
namespace {

// Sums of a tile of rows, as lanes have them: [tile of activations][register][lane]. With fewer than four rows of activations
// several lanes have a part of each.
template <typename Operands>
struct LaneSums {
  static constexpr int kLaneRows = Operands::kLaneRows, kTileRows = Operands::kTileRows, kParts = 4 * kLaneRows / kTileRows;
  static constexpr int kRegisters = 2 * kLaneRows, kTileWords = kRegisters * 32, kWords = Operands::kTiles * kTileWords;

  // The first row of a tile of activations that lanes 4g + t have sums of.
  __device__ __forceinline__ static int FirstRow(int t) { return t / kParts * kLaneRows; }

  // The sum of a row of the tile and one of the activations.
  __device__ __forceinline__ static int Of(const int* sums, int r, int row) {
    const int* at = sums + row / kTileRows * kTileWords + (r / 8 * kLaneRows + row % kLaneRows) * 32 + r % 8 * 4 + row % kTileRows / kLaneRows * kParts;
    int sum = at[0];
#pragma unroll
    for (int i = 1; i < kParts; ++i) sum += at[i];
    return sum;
  }
};

// When the first panel of a warp is decoded: when its turn comes; before the kernel ahead has ended, for which all of a ring must have been
// asked for, since lanes count their copies; or while activations are on their way, if the copy engine fetches panels, also where these come
// one after the other until then.
enum FirstPanel { kInTurn, kAhead, kAlong, kInPace };

// How a kernel goes about it: who fills a warp's ring, of how many panels, of which so many are asked for before the activations, the
// others, so as not to hold them up, when they are there; and whether a warp copies the activations of its next chunk to
// shared memory ahead of time, for which lanes must not wait for copies of panels meanwhile.
template <bool kByEngine, int kPanels, int kEarlyPanels = kPanels, FirstPanel kDecode = kInTurn, bool kNextAhead = false>
struct Plan {
  static_assert(kDecode != kAhead || kEarlyPanels == kPanels);
  static_assert(kDecode != kInPace || (kByEngine && kEarlyPanels == 1));
  static_assert(kByEngine || !kNextAhead);
  static constexpr bool kEngine = kByEngine, kNext = kNextAhead;
  static constexpr int kDepth = kPanels, kEarly = kEarlyPanels;
  static constexpr FirstPanel kFirst = kDecode;
};

// Shared memory of a block, by address from its begin.
template <Form kForm, typename Operands, typename Plan>
struct SmallLanesLayout {
  using Ring = PanelRing<kForm, Plan::kDepth, false>;
  using Rows = ShareRows<LaneSums<Operands>::kWords>;
  static constexpr int kWarps = kLaneWarps, kThreads = kWarps * 32;
  static constexpr int kRings = TableWords(kForm) * 4;
  static constexpr int kBarriers = kRings + kWarps * Ring::kBytes;
  static constexpr int kEnd = kBarriers + kWarps * Ring::kBarriers;  // a barrier: the kernels ahead have ended
  static constexpr int kStages = (kEnd + 8 + 15) / 16 * 16;
  // Of a warp, for the activations of its next chunk.
  static constexpr int kStageBytes = [] {
    if constexpr (Plan::kNext) return Operands::kStageBytes;
    return 0;
  }();
  static constexpr int kPeaks = kStages + kWarps * kStageBytes;
  static constexpr int kTiles = kPeaks + Operands::kRows * 4;

  static int Bytes(int tiles) { return kTiles + tiles * Rows::kTileBytes; }
};

// For batch <= Operands::kRows. Results are float16 if activations are, or if half_y says so.
template <Form kForm, typename Operands, typename Plan, Work kWork>
__global__ void __launch_bounds__(SmallLanesLayout<kForm, Operands, Plan>::kThreads, 1)
    SmallLanes(const typename Operands::Number* a, void* y, bool half_y, int batch, const __grid_constant__ PackedView w) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
  if constexpr (IsColumns(kForm)) return;  // weights of single columns have such forms on Hopper alone
#endif
  using Layout = SmallLanesLayout<kForm, Operands, Plan>;
#if __CUDA_ARCH__ >= 900
  using Ring = PanelRing<kForm, Plan::kDepth, Plan::kEngine>;
#else
  using Ring = PanelRing<kForm, Plan::kDepth, false>;
#endif
  constexpr bool kNext = Plan::kNext && Ring::kByEngine;
  constexpr FirstPanel kFirst = Plan::kFirst >= kAlong && !Ring::kByEngine ? kInTurn : Plan::kFirst;
  constexpr int kWarps = Layout::kWarps, kThreads = Layout::kThreads, kTiles = Operands::kTiles, kTileRows = Operands::kTileRows;
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
  for (int i = 0; i < Plan::kEarly; ++i) ring.Fetch(i);
  const typename Layout::Rows of_share(share, shared + Layout::kTiles);
  of_share.Begin(w, kThreads);
  if (threadIdx.x < Operands::kRows) peaks[threadIdx.x] = 0;
  if (kFirst == kInPace && threadIdx.x == 0) InitBarrier(address + Layout::kEnd, 1);
  table.Store(reinterpret_cast<uint32_t*>(shared));
  __syncthreads();

  typename Operands::Panel panel(w, address + lane * 4);
  constexpr int kProducts = Operands::Panel::kProducts;
  uint32_t first[kProducts][4];  // A of the first panel
  const auto decode_first = [&] {
    panel.Take(ring);
    panel.ForEach([&](int product, const uint32_t (&a)[4]) {
#pragma unroll
      for (int r = 0; r < 4; ++r) first[product][r] = a[r];
    });
  };
  if (kFirst == kAhead && begin < end) decode_first();
  // Where begin and the panel before end lie: of begin, a part of share.count * w.chunks, the quotient is that part of w.chunks.
  int chunk = Part(w.chunks, warp, kWarps), tile = begin - chunk * share.count, last = Part(w.chunks, warp + 1, kWarps);
  if (last * share.count == end) --last;
  asm volatile("" : "+r"(tile), "+r"(chunk), "+r"(last));  // now, while there is time
  Operands b(w, a, batch, lane);
  uint32_t largest[kTiles];
  const auto raise_peaks = [&] {
    b.Peaks(largest);
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      if (lane % (32 / kTileRows) == 0) atomicMax(peaks + i * kTileRows + lane * kTileRows / 32, largest[i]);
    }
  };
  int asked = Plan::kEarly;
  if constexpr (kFirst == kInPace) {
    asked = ring.FetchUntilEnd(warp == 0, address + Layout::kEnd);
  } else {
    WaitForKernelsAhead();
  }

  // Sums of all chunks are in one unit, which the peaks of all decide on.
  const uint32_t stage = address + Layout::kStages + warp * Layout::kStageBytes + lane * 16;
  const auto copy_next = [&] {
    if constexpr (kNext) {
      if (begin < end && chunk < last) b.Copy(w, chunk + 1, stage);
    }
  };
  for (int other = last; other > chunk + kNext; --other) {
    b.Fetch(w, other);
    raise_peaks();
  }
  if (begin < end) b.Fetch(w, chunk);
  copy_next();
  if constexpr (kFirst >= kAlong) {
    int once = begin < end;  // a loop, ahead of which the compiler does not move what waits for activations
    asm volatile("" : "+r"(once));
    for (; once > 0; --once) decode_first();
    b.Hold();
  }
  if (begin < end) raise_peaks();
#pragma unroll
  for (int i = Plan::kEarly; i < Plan::kDepth; ++i) {
    if (kFirst != kInPace || i >= asked) ring.Fetch(i);
  }
  if (begin < end) b.Make(w, largest, lane);
  if (kFirst == kAhead && begin < end) ring.Advance();
  if constexpr (kNext) {
    if (begin < end && chunk < last) {
      b.TakeCopy(stage);
      raise_peaks();
    }
  }

  typename Operands::Sums sum;
  const auto multiply = [&] {
    panel.Take(ring);
    b.Begin(panel, sum);
    if constexpr (kWork == kMultiply) {
      panel.ForEach([&](int product, const uint32_t (&a)[4]) { b.Multiply(a, product, sum); });
    } else {
      uint32_t all = 0;
      if constexpr (kWork == kFetch) {
        all = panel.Fold();
      } else {
        panel.ForEach([&](int, const uint32_t (&a)[4]) { all ^= a[0] ^ a[1] ^ a[2] ^ a[3]; });
      }
      if (all == 0) b.Multiply({all, all, all, all}, 0, sum);  // which it hardly ever is
    }
  };
  // The first panel, while other warps are waiting for their activations.
  if (begin < end) {
    if constexpr (kFirst != kInTurn) {
      b.Begin(panel, sum);
#pragma unroll
      for (int product = 0; product < kProducts; ++product) b.Multiply(first[product], product, sum);
    } else {
      multiply();
    }
  }
  __syncthreads();

  constexpr int kRegisters = LaneSums<Operands>::kRegisters, kLaneRows = Operands::kLaneRows;
  const auto set_units = [&] {
#pragma unroll
    for (int i = 0; i < kTiles * kLaneRows; ++i) {
      const uint32_t peak = peaks[i / kLaneRows * kTileRows + LaneSums<Operands>::FirstRow(lane % 4) + i % kLaneRows];
      b.SetUnit(i / kLaneRows, i % kLaneRows, FixedPoint(w, peak));
    }
  };
  set_units();
  const uint32_t first_sum = of_share.SumsAddress() + lane * 4;
  for (int item = begin; item < end;) {
    const uint32_t to = first_sum + tile * LaneSums<Operands>::kWords * 4;
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      if (i * kTileRows + LaneSums<Operands>::FirstRow(lane % 4) >= batch) continue;
#pragma unroll
      for (int r = 0; r < kRegisters; ++r)
        AddShared(to + static_cast<uint32_t>(i * kRegisters + r) * 128, b.Sum(sum, i, r));
    }
    if (kFirst != kAhead || item > begin) ring.Advance();
    if (++item == end) break;
    if (++tile == share.count) {
      tile = 0;
      ++chunk;
      if constexpr (kNext) {
        b.TakeCopy(stage);
      } else {
        b.Fetch(w, chunk);
      }
      b.Peaks(largest);
      b.Hold();  // nobody reads the stage any more
      copy_next();
      b.Make(w, largest, lane);
      set_units();
    }
    multiply();
  }
  CommitCopies();  // those of the scales, if no panel's took them along
  WaitForCopies<0>();
  __syncthreads();

  of_share.template ForEachResult<Operands::kRows, kThreads>(w, batch, [&](int at, int r, int row, int n, const auto& finish) {
    const float product = static_cast<float>(LaneSums<Operands>::Of(of_share.Sums(at), r, row)) * (FixedPoint(w, peaks[row]).step * Operands::Unit(r / 8));
    const int64_t to = static_cast<int64_t>(row) * w.rows + n;
    if (sizeof(typename Operands::Number) == 2 || half_y) {
      static_cast<__half*>(y)[to] = __float2half_rn(finish(product));
    } else {
      static_cast<float*>(y)[to] = finish(product);
    }
  });
}

// Launches the kernel over the whole device; false if the weight does not fit. Activations must be as RowLoads wants them.
template <Form kForm, typename Operands, typename Plan, Work kWork = kMultiply>
bool LaunchSmallLanes(const PackedView& w, const typename Operands::Number* a, int batch, void* y, bool half_y, cudaStream_t stream) {
  using Layout = SmallLanesLayout<kForm, Operands, Plan>;
  const auto kernel = SmallLanes<kForm, Operands, Plan, kWork>;
  const Device& device = CurrentDevice();
  const int shared = Layout::Bytes((w.tiles + w.shares - 1) / w.shares);
  if (shared > device.shared_limit) return false;
  ReserveSharedMemory(kernel);
  LaunchOverlapped("multiply a few rows", kernel, dim3(static_cast<unsigned>(w.shares)), Layout::kThreads, static_cast<size_t>(shared), device.hopper,
                   stream, a, y, half_y, batch, w);
  return true;
}

}  // namespace
}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_SMALL_LANES_CUH_
