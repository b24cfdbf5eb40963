// How the numbers of a tensor lie where another one has them: what Transpose, Expand, Split and the like make of it without a copy.

#ifndef COSETQ_EP_STRIDED_H_
#define COSETQ_EP_STRIDED_H_

#include <optional>
#include <vector>

#include "tensor.h"

namespace cosetq::ep {

class Strided {
 public:
  // Steps of so many elements, from the outermost to the innermost of a dimension: [2, 3] heads of which three each are the same are (2, n) (3, 0).
  // A dimension of 1 has none.
  struct Factor {
    int64_t size, stride;
  };
  using Dimension = std::vector<Factor>;

  // As a tensor of that shape lies.
  explicit Strided(const Shape& shape);

  Shape shape() const;
  size_t rank() const { return dims_.size(); }
  const Dimension& operator[](size_t d) const { return dims_[d]; }
  // Whether it lies as a tensor of its shape does.
  bool whole() const;
  // Sizes and strides of the walk over all factors.
  Shape sizes() const;
  Shape strides() const;
  // The stride of each dimension, where each has one; nothing where one has several.
  std::optional<Shape> Simple() const;

  Strided Transposed(const std::vector<size_t>& order) const;
  // To a shape that it can be broadcast to.
  Strided Expanded(const Shape& shape) const;
  // Nothing where the numbers do not lie so that a walk over this shape meets them in their order.
  std::optional<Strided> Reshaped(const Shape& shape) const;
  // So many of a dimension, by steps; what it begins with is begin elements further on. Nothing for a dimension of several factors.
  std::optional<Strided> Cut(size_t dim, int64_t first, int64_t size, int64_t step, int64_t* begin) const;

 private:
  std::vector<Dimension> dims_;
};

}  // namespace cosetq::ep

#endif  // COSETQ_EP_STRIDED_H_
