// Starts a function object for every element, or for every block, on the device or on the host. The
// function objects are the same for both.

#ifndef COSETQ_EP_LAUNCH_H_
#define COSETQ_EP_LAUNCH_H_

#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "backend.h"
#include "scalar.h"
#include "stream.h"

#ifdef __CUDACC__
#include "device.h"
#include "overlap.h"
#endif

namespace cosetq::ep {

// Threads that work on one item together; on the host there is one.
struct Block {
#ifdef __CUDA_ARCH__
  __device__ int thread() const { return threadIdx.x; }
  __device__ int threads() const { return blockDim.x; }
  // What threads of the block have written to memory is there for the others.
  __device__ void Meet() const { __syncthreads(); }

  // V is float or int64_t.
  template <typename V, typename Combine>
  __device__ V Reduce(V x, std::common_type_t<V> neutral, Combine combine) const {
    __shared__ V partial[32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int offset = 16; offset > 0; offset /= 2)
      x = combine(x, __shfl_xor_sync(0xffffffffu, x, offset));
    if (blockDim.x == 32) return x;
    __syncthreads();  // the previous reduction has been read
    if (lane == 0) partial[warp] = x;
    __syncthreads();
    x = lane < static_cast<int>(blockDim.x / 32) ? partial[lane] : neutral;
    for (int offset = 16; offset > 0; offset /= 2)
      x = combine(x, __shfl_xor_sync(0xffffffffu, x, offset));
    return x;
  }
#else
  COSETQ_HD int thread() const { return 0; }
  COSETQ_HD int threads() const { return 1; }
  COSETQ_HD void Meet() const {}

  template <typename V, typename Combine>
  COSETQ_HD V Reduce(V x, std::common_type_t<V>, Combine) const {
    return x;
  }
#endif
};

struct Plus {
  COSETQ_HD float operator()(float a, float b) const { return a + b; }
};
struct Larger {
  COSETQ_HD float operator()(float a, float b) const { return a > b || a != a ? a : b; }
};

inline int CheckedCount(int64_t count) {
  if (count < 0) throw std::invalid_argument("a size of " + std::to_string(count));
  if (count > INT32_MAX) {
    throw DeviceError("a tensor of " + std::to_string(count) +
                      " elements is more than the GPU kernels handle (2^31); use a smaller batch");
  }
  return static_cast<int>(count);
}

#ifdef __CUDACC__
constexpr int kThreads = 256, kMostThreads = 1024;

// What a kernel of the provider begins with: it was launched while the one ahead of it still ran. Of one with many blocks the next one
// waits for the end, so as not to take processors from it.
__device__ __forceinline__ void Begin() {
  constexpr unsigned kMany = 512;
  if (gridDim.x * gridDim.y * gridDim.z < kMany) cuda::LetNextKernelBegin();
  cuda::WaitForKernelsAhead();
}

// Launches a kernel that begins with Begin.
template <typename... Parameters, typename... Arguments>
void Launch(Stream& stream, void (*kernel)(Parameters...), dim3 grid, unsigned threads, size_t shared, const Arguments&... arguments) {
  try {
    cuda::LaunchOverlapped("start a kernel", kernel, grid, threads, shared, cuda::CurrentDevice().hopper, static_cast<cudaStream_t>(stream.handle()),
                           arguments...);
  } catch (const cuda::Error& e) {
    throw DeviceError(e.what());
  }
}

template <typename F>
__global__ void EachKernel(int count, F f) {
  Begin();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) f(static_cast<int>(i));
}

template <typename F>
__global__ void __launch_bounds__(kMostThreads) BlockKernel(F f) {
  Begin();
  f(Block(), static_cast<int>(blockIdx.x));
}
#endif

// f(i) for all i < count, in any order.
template <typename F>
void ForEach(Stream& stream, int64_t count64, const F& f) {
  const int count = CheckedCount(count64);
  if (count == 0) return;
  (void)stream;  // used on the device only
#ifdef __CUDACC__
  if (!stream.on_host()) {
    Launch(stream, EachKernel<F>, (count - 1) / kThreads + 1, kThreads, 0, count, f);
    return;
  }
#endif
  for (int i = 0; i < count; ++i) f(i);
}

// f(block, i) for all i < count; the threads of the block share the item, whose length is about work.
template <typename F>
void ForEachBlock(Stream& stream, int64_t count64, int64_t work, const F& f) {
  const int count = CheckedCount(count64);
  if (count == 0) return;
  (void)stream;
  (void)work;
#ifdef __CUDACC__
  if (!stream.on_host()) {
    constexpr int kFew = 32;  // items, which cannot fill the processors otherwise
    const int threads = work <= 64 ? 32 : work <= 512 ? 128 : work < 2048 || count > kFew ? 256 : kMostThreads;
    Launch(stream, BlockKernel<F>, count, static_cast<unsigned>(threads), 0, f);
    return;
  }
#endif
  for (int i = 0; i < count; ++i) f(Block(), i);
}

}  // namespace cosetq::ep

#endif  // COSETQ_EP_LAUNCH_H_
