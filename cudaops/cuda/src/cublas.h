// The matrix products of cuBLAS, if the machine has it: the library is looked for when it is first needed, so that nothing
// depends on it to build or to load.

#ifndef COSETQ_CUDA_CUBLAS_H_
#define COSETQ_CUDA_CUBLAS_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace cosetq::cuda {

// Memory that a product takes while it runs.
constexpr size_t kCublasWorkspace = size_t{32} << 20;

// Whether cuBLAS is there.
bool HasCublas();

// One factor of several products: its rows (or, transposed, its columns) lie ld numbers apart, the matrices of two products batch.
struct Factor {
  const void* data = nullptr;
  int64_t ld = 0;
  bool transposed = false;
  int64_t batch = 0;
};

// C [m, n] = alpha * A [m, k] * B [k, n] + beta * C, so many of them, in float16 or float, added up in float.
struct Products {
  bool half = false;
  bool ten_bits = false;  // floats are cut to what tensor cores take of them
  int64_t m = 0, n = 0, k = 0, count = 1;
  float alpha = 1;
  bool add = false;  // beta is 1, else 0
  Factor a, b;
  void* c = nullptr;
  int64_t ldc = 0, c_batch = 0;
};

// Throws an Error.
void Multiply(const Products& products, void* workspace, cudaStream_t stream);

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_CUBLAS_H_
