// Up to 16 rows of activations times a weight of single columns: the weights stream through the tensor cores as float16 numbers.

#ifndef COSETQ_CUDA_NIBBLES_FEW_H_
#define COSETQ_CUDA_NIBBLES_FEW_H_

#include <cuda_runtime.h>

#include "nibbles_rows.h"
#include "views.h"

namespace cosetq::cuda {

constexpr int kMaxFewRows = 16;

// What rests are larger than the rows by that they belong to.
constexpr float kRestScale = 0x1p11f;

// Y = A * W^T + bias for up to kMaxFewRows rows, y float or float16. With two parts, the second half of them are rests, whose products
// add to those of the first. False, and nothing done, if the weight does not fit the device's shared memory.
bool NibblesFew(const PackedView& w, const NibbleRows& a, int parts, void* y, bool half_y, cudaStream_t stream);

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_NIBBLES_FEW_H_
