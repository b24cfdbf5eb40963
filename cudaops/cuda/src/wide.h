// Products with many rows of activations on Hopper: weights are decoded on their way to the tensor cores, and never written
// down. Activations are float16 numbers, or bytes with a step for each row.

#ifndef COSETQ_CUDA_WIDE_H_
#define COSETQ_CUDA_WIDE_H_

#include <cuda_runtime.h>

#include "views.h"

namespace cosetq::cuda {

// The workspace of WideLinear, in bytes.
size_t WideWorkspace(const PackedView& w, int64_t batch, bool bytes);

// Y = A * W^T + bias, A rotated by the turn, if it has factors, either of a and y float or float16. With bytes, activations are rounded to 8 bits. Needs compute
// capability 9.0. Returns whether tiles are divided (tiles.cuh).
bool WideLinear(const PackedView& w, const Turn& turn, const void* a, bool half_a, int64_t batch, bool bytes, void* y, bool half_y,
                void* workspace, cudaStream_t stream);

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_WIDE_H_
