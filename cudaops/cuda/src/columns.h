// The linear operation with weights of single columns and activations of float16 (column_halves.cuh), on Hopper.

#ifndef COSETQ_CUDA_COLUMNS_H_
#define COSETQ_CUDA_COLUMNS_H_

#include <cuda_runtime.h>

#include "views.h"

namespace cosetq::cuda {

// The workspace of ColumnsLinear, in bytes.
size_t ColumnsWorkspace(const PackedView& w, int64_t batch);

// Y = A * W^T + bias, A rotated by the turn, if it has factors, either of a and y float or float16. Throws an Error.
void ColumnsLinear(const PackedView& w, const Turn& turn, const void* a, bool half_a, int64_t batch, void* y, bool half_y, void* workspace,
                   cudaStream_t stream);

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_COLUMNS_H_
