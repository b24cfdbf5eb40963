// The linear operation for few rows of float16 activations, which are multiplied as they are.

#ifndef COSETQ_CUDA_SMALL_HALVES_H_
#define COSETQ_CUDA_SMALL_HALVES_H_

#include <cuda_runtime.h>

#include "views.h"

namespace cosetq::cuda {

// Whether activations lie as the kernel wants them, and it takes less time than the one that makes bytes of them.
bool TakesHalves(const PackedView& w, const void* a, int batch);

// Y = A * W^T + bias for up to 16 rows, both float16. False, and nothing done, if the weight does not fit the device's shared memory.
bool SmallHalvesLinear(const PackedView& w, const void* a, int batch, void* y, cudaStream_t stream);

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_SMALL_HALVES_H_
