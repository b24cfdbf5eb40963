// Rows of activations as the kernels for weights of single columns take them.

#ifndef COSETQ_CUDA_HALF_ROWS_H_
#define COSETQ_CUDA_HALF_ROWS_H_

#include <cuda_fp16.h>

#include <cstdint>

namespace cosetq::cuda {

// Coordinate j of group i of row n is data[n * row_stride + j * coordinate_stride + i], and 0 from the last group on. Strides are
// multiples of eight numbers, data is one of 16 bytes.
struct HalfRows {
  const __half* data;
  int rows;
  int64_t row_stride, coordinate_stride;
  int groups;
  const float* steps;  // what results of a row are multiplied by; null for 1
};

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_HALF_ROWS_H_
