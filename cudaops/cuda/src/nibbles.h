// The linear operation with weights of single columns, four bits each (nibbles.cuh), on Hopper.

#ifndef COSETQ_CUDA_NIBBLES_H_
#define COSETQ_CUDA_NIBBLES_H_

#include <cuda_runtime.h>

#include "views.h"

namespace cosetq::cuda {

// The workspace of NibblesLinear, in bytes.
size_t NibblesWorkspace(const PackedView& w, int64_t batch);

// Y = A * W^T + bias, either of a and y float or float16. Up to kMaxFewRows rows (nibbles_few.h) have a kernel of their own. Throws an
// Error.
void NibblesLinear(const PackedView& w, const void* a, bool half_a, int64_t batch, void* y, bool half_y, void* workspace,
                   cudaStream_t stream);

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_NIBBLES_H_
