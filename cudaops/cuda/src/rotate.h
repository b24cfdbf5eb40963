// The rotation of activations that a weight was coded under.

#ifndef COSETQ_CUDA_ROTATE_H_
#define COSETQ_CUDA_ROTATE_H_

#include <cuda_runtime.h>

#include "views.h"

namespace cosetq::cuda {

// Writes batch rows of a, float or float16, rotated, to out, [batch, cols] in float.
void Rotate(const Turn& turn, const void* a, bool half, int64_t batch, int64_t cols, float* out, cudaStream_t stream);

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_ROTATE_H_
