// The linear operation for many rows of activations: weights are decoded a slice of rows at a time, and cuBLAS multiplies.

#ifndef COSETQ_CUDA_LARGE_H_
#define COSETQ_CUDA_LARGE_H_

#include <cuda_runtime.h>

#include "weight.h"

namespace cosetq::cuda {

// The least batch that is worth it.
constexpr int64_t kMinLargeBatch = 48;

// The workspace that LargeLinear takes, in bytes.
size_t LargeWorkspace(const DeviceWeight& w, int64_t batch, bool half_a, bool half_y);

// Y = A * W^T + bias. Float16 stays float16; if either of a and y is float, the products have tensor cores' ten bits. Needs
// cuBLAS.
void LargeLinear(const DeviceWeight& w, const void* a, bool half_a, int64_t batch, void* y, bool half_y, void* workspace,
                 cudaStream_t stream);

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_LARGE_H_
