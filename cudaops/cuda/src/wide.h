// Products with many rows of activations on Hopper: weights are decoded on their way to the tensor cores, and never written
// down. Activations are float16 numbers, or bytes with a step for each row.

#ifndef COSETQ_CUDA_WIDE_H_
#define COSETQ_CUDA_WIDE_H_

#include <cuda_runtime.h>

#include "views.h"

namespace cosetq::cuda {

// The workspace of WideLinear, in bytes. half_a: it is given float16 numbers and no turn.
size_t WideWorkspace(const PackedView& w, int64_t batch, bool bytes, bool half_a);

// Y = A * W^T + bias, A rotated by the turn, if it has factors, either of a and y float or float16. With bytes, activations are rounded to 8 bits. Needs compute
// capability 9.0. Returns how it is done (tiles.cuh).
enum WideKernel { kWideTiles, kDividedTiles, kLyingRows };  // whose tiles may be divided too
WideKernel WideLinear(const PackedView& w, const Turn& turn, const void* a, bool half_a, int64_t batch, bool bytes, void* y, bool half_y,
                void* workspace, cudaStream_t stream);

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_WIDE_H_
