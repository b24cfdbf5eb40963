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
  class Dimension {
   public:
    Dimension(const Factor* begin, const Factor* end) : begin_(begin), end_(end) {}
    const Factor* begin() const { return begin_; }
    const Factor* end() const { return end_; }
    size_t size() const { return static_cast<size_t>(end_ - begin_); }
    bool empty() const { return begin_ == end_; }
    const Factor& operator[](size_t i) const { return begin_[i]; }
    const Factor& back() const { return end_[-1]; }

   private:
    const Factor *begin_, *end_;
  };

  // As a tensor of that shape lies.
  explicit Strided(const Shape& shape);

  Shape shape() const;
  size_t rank() const { return ends_.size(); }
  Dimension operator[](size_t d) const { return {factors_.data() + (d == 0 ? 0 : ends_.at(d - 1)), factors_.data() + ends_.at(d)}; }
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
  Strided() = default;
  void End() { ends_.push_back(factors_.size()); }

  std::vector<Factor> factors_;
  std::vector<size_t> ends_;  // of the factors of each dimension
};

}  // namespace cosetq::ep

#endif  // COSETQ_EP_STRIDED_H_
