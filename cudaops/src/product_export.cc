// The C interface of products of matrices.

#include <string>

#include "cosetq/cosetq.h"
#include "cpu/dispatch.h"

extern "C" int cosetq_add_product(float* c, int64_t c_stride, const float* a, int64_t a_stride,
                                  const float* b, int64_t b_stride, int64_t rows, int64_t depth,
                                  int64_t columns) {
  std::string error;
  if (!cosetq::SelectIsaFromEnvironment(&error)) return -1;
  cosetq::ActiveKernels().add_product({c, c_stride, a, a_stride, b, b_stride, rows, depth, columns});
  return 0;
}

extern "C" int cosetq_add_product_double(double* c, int64_t c_stride, const double* a,
                                         int64_t a_stride, const double* b, int64_t b_stride,
                                         int64_t rows, int64_t depth, int64_t columns) {
  std::string error;
  if (!cosetq::SelectIsaFromEnvironment(&error)) return -1;
  cosetq::ActiveKernels().add_product_double(
      {c, c_stride, a, a_stride, b, b_stride, rows, depth, columns});
  return 0;
}
