// The linear operation for up to 16 rows of activations: the weights stream through the tensor cores as bytes.

#ifndef COSETQ_CUDA_SMALL_H_
#define COSETQ_CUDA_SMALL_H_

#include <cuda_runtime.h>

#include "fragments.h"

namespace cosetq::cuda {

// Rows of activations that the fragments for a batch have room for.
constexpr int SmallRoom(int64_t batch) { return batch <= 4 ? 4 : batch <= 8 ? 8 : 16; }

// Y = A * W^T + bias for batch <= kMaxSmallBatch rows in fragments of SmallRoom(batch). y is float or float16.
void SmallLinear(const PackedView& w, const Fragments& a, int batch, void* y, bool half, cudaStream_t stream);

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_SMALL_H_
