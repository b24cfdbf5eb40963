#include "columns.h"

#include <cuda_fp16.h>

#include "columns_many.h"
#include "device.h"
#include "errors.h"
#include "overlap.h"
#include "rotate.cuh"

namespace cosetq::cuda {
namespace {

constexpr int kParts = 2;                         // of a coordinate, a warp each
constexpr int kThreads = 32 * kGroup * kParts;    // of a block that makes a row ready
constexpr int kHeld = 8;                          // pairs of groups that a thread reads once; of long rows others, twice

// Rows made ready, [row][coordinate][group], and their steps.
struct ReadyRows {
  int groups;  // padded to whole panels
  __half* data;
  float* steps;
  size_t bytes;

  ReadyRows(const PackedView& w, int64_t rows, void* memory) : groups(w.chunks * kPanelGroups), data(static_cast<__half*>(memory)) {
    const auto of_data = static_cast<size_t>(rows * kGroup * groups) * sizeof(__half);
    steps = reinterpret_cast<float*>(static_cast<unsigned char*>(memory) + of_data);
    bytes = of_data + static_cast<size_t>(rows) * sizeof(float);
  }
};

// Makes a row float16, a block each. Floats are scaled by a power of two of their own, so that the largest has a float16 number with
// room to spare.
template <bool kTurned, typename T>
__global__ void __launch_bounds__(kThreads) Prepare(const __grid_constant__ PackedView w, Turn turn, const T* a, ReadyRows out) {
  using Number = RowNumber<kTurned, T>;
  __shared__ uint32_t peak;
  LetNextKernelBegin();
  if (threadIdx.x == 0) peak = 0;
  __syncthreads();
  WaitForKernelsAhead();
  const int coordinate = threadIdx.x / 32 / kParts, first = (threadIdx.x / 32 % kParts * 32 + threadIdx.x % 32) * 2;
  const Number* from = RowOf<kTurned, kThreads>(turn, a + static_cast<int64_t>(blockIdx.x) * w.cols, w.cols);
  const auto load = [&](int group) {
    const int column = group + w.groups * coordinate;
    return group < w.groups && column < w.cols ? ToFloat(Fresh<kTurned>(from + column)) : 0.0f;
  };
  constexpr int kStride = 64 * kParts;
  float2 held[kHeld];
#pragma unroll
  for (int i = 0; i < kHeld; ++i) held[i] = make_float2(load(first + i * kStride), load(first + i * kStride + 1));
  float scale = 1;
  if constexpr (sizeof(Number) == 4) {
    uint32_t largest = 0;
#pragma unroll
    for (const float2& x : held) largest = max(largest, max(Magnitude(x.x), Magnitude(x.y)));
    for (int group = first + kHeld * kStride; group < w.groups; group += kStride)
      largest = max(largest, max(Magnitude(load(group)), Magnitude(load(group + 1))));
    largest = __reduce_max_sync(0xffffffffu, largest);
    if (threadIdx.x % 32 == 0) atomicMax(&peak, largest);
    __syncthreads();
    const int exponent = max(static_cast<int>(peak >> 23) - 14, 1);
    float step = __uint_as_float(static_cast<uint32_t>(exponent) << 23);
    scale = __uint_as_float(static_cast<uint32_t>(254 - exponent) << 23);
    if (peak >= 0x7f800000u) step = __int_as_float(0x7fffffff);
    if (threadIdx.x == 0) out.steps[blockIdx.x] = step;
  }
  const int64_t row = (static_cast<int64_t>(blockIdx.x) * kGroup + coordinate) * out.groups;
  const auto store = [&](int group, float x, float y) {
    if (group >= out.groups) return;
    *reinterpret_cast<__half2*>(out.data + row + group) = __floats2half2_rn(x * scale, y * scale);
  };
#pragma unroll
  for (int i = 0; i < kHeld; ++i) store(first + i * kStride, held[i].x, held[i].y);
  for (int group = first + kHeld * kStride; group < out.groups; group += kStride) store(group, load(group), load(group + 1));
}

// Rows as the kernels want them: as they are, if they lie so.
template <bool kTurned, typename T>
HalfRows Ready(const PackedView& w, const Turn& turn, const T* a, int rows, void* workspace, cudaStream_t stream) {
  if constexpr (sizeof(RowNumber<kTurned, T>) == 2) {
    if (w.cols % (8 * kGroup) == 0 && reinterpret_cast<uintptr_t>(a) % 16 == 0) return {a, rows, w.cols, w.groups, w.groups, nullptr};
  }
  const ReadyRows ready(w, rows, workspace);
  LaunchForRows("make activations ready", Prepare<kTurned, T>, rows, kThreads, turn, w.cols, stream, w, turn, a, ready);
  return {ready.data, rows, int64_t{kGroup} * ready.groups, ready.groups, ready.groups, sizeof(RowNumber<kTurned, T>) == 4 ? ready.steps : nullptr};
}

template <typename T>
void Multiply(const PackedView& w, const Turn& turn, const T* a, int rows, void* y, bool half_y, void* workspace, cudaStream_t stream) {
  const auto ready = turn.factors == nullptr ? Ready<false, T> : Ready<true, T>;
  if (!ColumnsMany(w, ready(w, turn, a, rows, workspace, stream), y, half_y, stream)) throw Error("the device has too little shared memory");
}

}  // namespace

size_t ColumnsWorkspace(const PackedView& w, int64_t batch) { return ReadyRows(w, batch, nullptr).bytes; }

void ColumnsLinear(const PackedView& w, const Turn& turn, const void* a, bool half_a, int64_t batch, void* y, bool half_y, void* workspace,
                   cudaStream_t stream) {
  const auto rows = static_cast<int>(batch);
  half_a ? Multiply(w, turn, static_cast<const __half*>(a), rows, y, half_y, workspace, stream)
         : Multiply(w, turn, static_cast<const float*>(a), rows, y, half_y, workspace, stream);
}

}  // namespace cosetq::cuda
