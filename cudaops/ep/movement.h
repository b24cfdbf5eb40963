// The copy that most of the moving operators are.

#ifndef COSETQ_EP_MOVEMENT_H_
#define COSETQ_EP_MOVEMENT_H_

#include "operator.h"

namespace cosetq::ep {

// Copies elements from x to y, each with its first element and its strides, walking over shape.
void Move(Call& call, const Shape& shape, const Tensor& x, int64_t x_first, const Shape& x_strides,
          const Tensor& y, int64_t y_first, const Shape& y_strides);

}  // namespace cosetq::ep

#endif  // COSETQ_EP_MOVEMENT_H_
