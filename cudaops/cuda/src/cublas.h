// The matrix products of cuBLAS, if the machine has it: the library is looked for when it is first needed, so that nothing
// depends on it to build or to load.

#ifndef COSETQ_CUDA_CUBLAS_H_
#define COSETQ_CUDA_CUBLAS_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace cosetq::cuda {

enum class Numbers { kHalf, kFloat, kInt8 };  // of the factors; products of kInt8 are int32

// Memory that a product takes while it runs.
constexpr size_t kCublasWorkspace = size_t{32} << 20;

// Whether cuBLAS is there.
bool HasCublas();

// C [m, n] with rows of ldc = A [m, k] * B [n, k]^T; kFloat is multiplied with tensor cores' ten bits. With add, C += it.
// Throws an Error.
void Multiply(Numbers numbers, int64_t m, int64_t n, int64_t k, const void* a, const void* b, void* c, int64_t ldc, bool add,
              void* workspace, cudaStream_t stream);

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_CUBLAS_H_
