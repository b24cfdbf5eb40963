// How the copy engine fetches parts of rows of activations as they lie.

#ifndef COSETQ_CUDA_ROW_MAP_H_
#define COSETQ_CUDA_ROW_MAP_H_

#include <cuda.h>

#include "half_rows.h"

namespace cosetq::cuda {

// Boxes of so many coordinates of so many rows, each 32 or 64 groups, as wgmma.cuh wants 64 or 128 bytes of columns of B.
CUtensorMap RowMap(const HalfRows& a, int groups, int rows, int coordinates);

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_ROW_MAP_H_
