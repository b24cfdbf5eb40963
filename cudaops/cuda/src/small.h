// The linear operation for up to 16 rows of activations: the weights stream through the tensor cores as bytes.

#ifndef COSETQ_CUDA_SMALL_H_
#define COSETQ_CUDA_SMALL_H_

#include <cuda_runtime.h>

#include "views.h"

namespace cosetq::cuda {

constexpr int kMaxSmallBatch = 16;

// Y = A * W^T + bias for batch <= kMaxSmallBatch rows, either of a and y float or float16. False, and nothing done, if the
// activations do not fit the device's shared memory: then fewer rows may.
bool SmallLinear(const PackedView& w, const void* a, bool half_a, int batch, void* y, bool half_y, cudaStream_t stream);

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_SMALL_H_
