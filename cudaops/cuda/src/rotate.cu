#include "rotate.h"

#include <cuda_fp16.h>

#include <algorithm>

#include "device.h"
#include "overlap.h"
#include "rotate.cuh"

namespace cosetq::cuda {
namespace {

constexpr int kWarps = 4;

template <typename T>
__global__ void __launch_bounds__(kWarps * 32) RotateRows(Turn turn, const T* a, int64_t cols, float* out, bool whole, bool eights_in, bool eights_out) {
  LetNextKernelBegin();
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32) * kTurnOfWarp + threadIdx.x % 32 * kTurnOfLane;
  const Eight<float> factors = LoadOfRow(turn.factors, first, cols, whole);
  WaitForKernelsAhead();
  StoreOfRow(TurnColumns(turn.block, LoadOfRow(a + blockIdx.y * cols, first, cols, eights_in), factors), out + blockIdx.y * cols, first, cols, eights_out);
}

template <typename T>
void Launch(const Turn& turn, const T* a, int64_t batch, int64_t cols, float* out, cudaStream_t stream) {
  constexpr int64_t kMost = 65535;  // of a grid
  for (int64_t row = 0; row < batch; row += kMost) {
    const dim3 grid(static_cast<unsigned>((cols + kWarps * kTurnOfWarp - 1) / (kWarps * kTurnOfWarp)), static_cast<unsigned>(std::min(kMost, batch - row)));
    LaunchOverlapped("rotate activations", RotateRows<T>, grid, kWarps * 32, 0, CurrentDevice().hopper, stream, turn, a + row * cols, cols,
                     out + row * cols, InEights(turn.factors, cols), InEights(a, cols), InEights(out, cols));
  }
}

}  // namespace

void Rotate(const Turn& turn, const void* a, bool half, int64_t batch, int64_t cols, float* out, cudaStream_t stream) {
  half ? Launch(turn, static_cast<const __half*>(a), batch, cols, out, stream) : Launch(turn, static_cast<const float*>(a), batch, cols, out, stream);
}

}  // namespace cosetq::cuda
