// Weights as numbers.

#ifndef COSETQ_CUDA_DECODE_H_
#define COSETQ_CUDA_DECODE_H_

#include <cuda_runtime.h>

#include "views.h"

namespace cosetq::cuda {

// Writes all weights [rows, cols], float or float16.
void Decode(const PackedView& w, void* out, bool half, cudaStream_t stream);
void Decode(const GeneralView& w, void* out, bool half, cudaStream_t stream);

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_DECODE_H_
