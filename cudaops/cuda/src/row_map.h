// How the copy engine fetches parts of rows of activations as they lie.

#ifndef COSETQ_CUDA_ROW_MAP_H_
#define COSETQ_CUDA_ROW_MAP_H_

#include <cuda.h>

#include "half_rows.h"

namespace cosetq::cuda {

// Boxes of so many coordinates of so many rows, each 32 or 64 groups, as wgmma.cuh wants 64 or 128 bytes of columns of B.
CUtensorMap RowMap(const HalfRows& a, int groups, int rows, int coordinates);

// Rows of float16 numbers of heads of batches: sizes are those of a row, rows, heads and batches, strides from one of each but the first to the next, in
// numbers, multiples of eight. Boxes have 64 numbers of so many rows of a head, as wgmma.cuh wants them, and zeros beyond all sizes.
CUtensorMap HeadMap(const __half* data, const int64_t (&sizes)[4], const int64_t (&strides)[3], int rows);

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_ROW_MAP_H_
