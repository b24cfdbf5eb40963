// The linear operation for any codec and any batch, in float.

#ifndef COSETQ_CUDA_GENERAL_H_
#define COSETQ_CUDA_GENERAL_H_

#include <cuda_runtime.h>

#include "views.h"

namespace cosetq::cuda {

// Y = A * W^T + bias, either of a and y float or float16.
void GeneralLinear(const GeneralView& w, const void* a, bool half_a, int64_t batch, void* y, bool half_y,
                   cudaStream_t stream);

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_GENERAL_H_
