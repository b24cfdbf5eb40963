// Products of matrices in float.

#ifndef COSETQ_EP_MATMUL_H_
#define COSETQ_EP_MATMUL_H_

#include "math.h"
#include "operator.h"

namespace cosetq::ep {

// C[m,n] = f(alpha * sum_k A[m,k] B[k,n] + beta * D[m,n]) for every batch. Strides are in elements; A
// and B may be transposed by their strides, D broadcast by its own.
struct Product {
  int m = 0, n = 0, k = 0;
  int64_t a_row = 0, a_column = 0, b_row = 0, b_column = 0, d_row = 0, d_column = 0;
  float alpha = 1, beta = 0;
  UnaryFunction f;
  int batches = 1;
  int first = 0;         // of those of one launch
  int64_t c_row = 0, c_batch = 0;  // from one row and batch of C to the next, whose columns lie together; 0 where C is dense
  Layout<2> batch = {};  // first elements of A and B
};

// All of one type, float or float16; d may be null.
void Multiply(Stream& stream, const Product& p, Type type, const void* a, const void* b, const void* d,
              void* c);

// The activation that a fused operator names; false where it is not known.
bool FindActivation(const Node& node, UnaryFunction* f);

}  // namespace cosetq::ep

#endif  // COSETQ_EP_MATMUL_H_
