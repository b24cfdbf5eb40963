// Y = A * W^T + bias: chooses a path.

#ifndef COSETQ_CUDA_LINEAR_H_
#define COSETQ_CUDA_LINEAR_H_

#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>

#include "weight.h"

namespace cosetq::cuda {

struct LinearCall {
  const void* a;
  void* y;
  int64_t batch;
  bool half;  // a and y
  bool fast;  // activations of 8 bits will do
  void* workspace;
  size_t workspace_bytes;
};

// The workspace of a call, which is not looked at otherwise.
size_t LinearWorkspace(const DeviceWeight& w, int64_t batch, bool half, bool fast);

// Throws an Error.
void Linear(const DeviceWeight& w, const LinearCall& call, cudaStream_t stream);

enum Path { kLanes, kSmall, kMiddle, kDirect, kWide, kDivided, kLying, kLarge, kGeneral, kGather, kPaths };

constexpr const char* kPathNames[kPaths] = {"lanes", "small", "middle", "direct", "wide", "divided", "lying", "large", "general", "gather"};

// Launches of a path so far.
std::atomic<int64_t>& Calls(Path path);

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_LINEAR_H_
