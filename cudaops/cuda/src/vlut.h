// Inner products by value look-up tables, as operations of their own: the reference points of the method, not the way to run a
// model.

#ifndef COSETQ_CUDA_VLUT_H_
#define COSETQ_CUDA_VLUT_H_

#include <cuda_runtime.h>

#include "views.h"

namespace cosetq::cuda {

// One-sided: y[n] = <row n, query>, from tables of the products of all codewords with the blocks of the query. partial holds
// chunks * rows numbers.
void OneSided(const PackedView& w, const float* query, float* partial, float* y, cudaStream_t stream);

// Two-sided: y[n, m] = <row n of a, row m of b> from the table of the products of all pairs of codewords. Both weights have
// one codec and one number of columns.
void TwoSided(const PackedView& a, const PackedView& b, float* y, cudaStream_t stream);

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_VLUT_H_
