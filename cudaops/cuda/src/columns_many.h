// Many rows of activations times a weight of single columns on Hopper: weights become float16 numbers on their way to the tensor cores.

#ifndef COSETQ_CUDA_COLUMNS_MANY_H_
#define COSETQ_CUDA_COLUMNS_MANY_H_

#include <cuda_runtime.h>

#include "half_rows.h"
#include "views.h"

namespace cosetq::cuda {

// Y = A * W^T + bias, y float or float16. False, and nothing done, if the device has no room for it.
bool ColumnsMany(const PackedView& w, const HalfRows& a, void* y, bool half_y, cudaStream_t stream);

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_COLUMNS_MANY_H_
