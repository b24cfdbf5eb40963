// Weights as numbers.

#ifndef COSETQ_CUDA_DECODE_H_
#define COSETQ_CUDA_DECODE_H_

#include <cuda_runtime.h>

#include "views.h"

namespace cosetq::cuda {

// Writes the weights of count rows from first on, [count, cols], float or float16. Of a packed weight, first must be a multiple of
// kPanelRows.
void Decode(const PackedView& w, int64_t first, int64_t count, void* out, bool half, cudaStream_t stream);
void Decode(const GeneralView& w, int64_t first, int64_t count, void* out, bool half, cudaStream_t stream);

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_DECODE_H_
