// Activations on their way into the small-batch kernel.

#ifndef COSETQ_CUDA_ACTIVATIONS_H_
#define COSETQ_CUDA_ACTIVATIONS_H_

#include <cuda_runtime.h>

#include "fragments.h"

namespace cosetq::cuda {

// Turns batch rows of a, float or float16, at most room of them, into fragments with room for that many. The rows are
// rotated first if the weight has a rotation.
void Fragment(const PackedView& w, const Turn& turn, const void* a, bool half, int batch, int room, const Fragments& out,
              cudaStream_t stream);

// Writes batch rows of a, rotated, to out, [batch, cols] in float.
void Rotate(const Turn& turn, const void* a, bool half, int64_t batch, int64_t cols, float* out, cudaStream_t stream);

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_ACTIVATIONS_H_
