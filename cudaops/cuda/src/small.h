// The linear operation for up to 16 rows of activations: the weights stream through the tensor cores as bytes.

#ifndef COSETQ_CUDA_SMALL_H_
#define COSETQ_CUDA_SMALL_H_

#include <cuda_runtime.h>

#include "views.h"

namespace cosetq::cuda {

constexpr int kMaxSmallBatch = 16;

// The workspace of SmallLinear, in bytes.
size_t SmallWorkspace(const PackedView& w, int64_t batch);

// Y = A * W^T + bias for batch <= kMaxSmallBatch rows, either of a and y float or float16. False, and nothing done, if the
// weight does not fit the device's shared memory.
bool SmallLinear(const PackedView& w, const void* a, bool half_a, int batch, void* y, bool half_y, void* workspace,
                 cudaStream_t stream);

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_SMALL_H_
