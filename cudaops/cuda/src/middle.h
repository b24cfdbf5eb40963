// The linear operation for a few more rows than the kernels of small.h are made for, or as many where those would take longer (compute capability
// 9.0).

#ifndef COSETQ_CUDA_MIDDLE_H_
#define COSETQ_CUDA_MIDDLE_H_

#include <cuda_runtime.h>

#include "views.h"

namespace cosetq::cuda {

constexpr int kMaxMiddleBatch = 64;

// Whether there is a kernel for so many rows of activations on this device, which takes less time than others, and they lie as it wants
// them.
bool TakesMiddle(const PackedView& w, const void* a, bool half_a, int64_t batch);

// Two kernels, whose panels come through shared memory or do not; neither if the columns do not fit shared memory.
enum MiddleKernel { kNoMiddle, kStagedMiddle, kDirectMiddle };

// Y = A * W^T + bias, either float or float16, for a batch that TakesMiddle; which kernel has done it.
MiddleKernel MiddleLinear(const PackedView& w, const void* a, bool half_a, int batch, void* y, bool half_y, cudaStream_t stream);

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_MIDDLE_H_
