// Single rows of a weight.

#ifndef COSETQ_CUDA_GATHER_H_
#define COSETQ_CUDA_GATHER_H_

#include <cuda_runtime.h>

#include "views.h"

namespace cosetq::cuda {

// Numbers of rows on the device, of which negative ones count from the end.
struct Indices {
  const void* data;
  bool wide;  // int64, else int32
  int64_t count;
};

// Writes the rows [count, cols], float or float16; one that the weight does not have is zero.
void Gather(const PackedView& w, const Indices& indices, void* out, bool half, cudaStream_t stream);
void Gather(const GeneralView& w, const Indices& indices, void* out, bool half, cudaStream_t stream);

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_GATHER_H_
