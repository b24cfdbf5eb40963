// Tensors, and the walk over several tensors that are broadcast against each other.

#ifndef COSETQ_EP_TENSOR_H_
#define COSETQ_EP_TENSOR_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "divisor.h"
#include "scalar.h"
#include "stream.h"

namespace cosetq::ep {

using Shape = std::vector<int64_t>;

// Throws where a dimension is negative, or those that are not 0 make a tensor that no memory holds: shapes come from inputs and models.
int64_t Count(const Shape& shape);

std::string Text(const Shape& shape);

// Row-major strides in elements.
Shape Strides(const Shape& shape);

// -1 counts from the end; throws when there is no such axis.
int Axis(int64_t axis, size_t rank);
// The same of several, none of which may come twice.
std::vector<size_t> Axes(const std::vector<int64_t>& axes, size_t rank);

struct Tensor {
  Type type = Type::kNone;
  Shape shape;
  std::shared_ptr<Buffer> buffer;

  int64_t count() const { return Count(shape); }
  size_t bytes() const { return static_cast<size_t>(count()) * SizeOf(type); }
  template <typename T = void>
  T* data() const {
    return static_cast<T*>(buffer->data());
  }
};

constexpr int kMaxRank = 8;

// Offsets of N tensors at each place of a row-major walk, dimensions from the last to the first. Loops over them are unrolled: a kernel
// that picks one at run time copies its parameters to every thread's memory.
template <size_t N>
struct Layout {
  int rank;
  int dims[kMaxRank];
  Divisor by[kMaxRank];  // dims
  int strides[N][kMaxRank];

  COSETQ_HD void At(int place, int (&offset)[N]) const {
    for (size_t n = 0; n < N; ++n) offset[n] = 0;
COSETQ_UNROLL
    for (int d = 0; d < kMaxRank; ++d) {
      const bool first = d + 1 == rank;
      const int next = first ? 0 : by[d].Of(place), index = place - next * dims[d];
      for (size_t n = 0; n < N; ++n) offset[n] += index * strides[n][d];
      if (first) break;
      place = next;
    }
  }
};

// Of a walk over shape, with each tensor's stride per dimension. Dimensions that every tensor walks
// through evenly become one. Throws where a place is further from the first than an int says.
template <size_t N>
Layout<N> MakeLayout(const Shape& shape, const std::array<Shape, N>& strides);

// A shape with an axis to work along: a scalar is one number.
inline Shape WithAxis(const Shape& shape) { return shape.empty() ? Shape{1} : shape; }

// Strides of a tensor that is broadcast to a shape: 0 where it is repeated. Throws if it cannot be.
Shape BroadcastStrides(const Shape& from, const Shape& to);

// The shape that all of them can be broadcast to.
Shape BroadcastShape(const std::vector<Shape>& shapes);

}  // namespace cosetq::ep

#endif  // COSETQ_EP_TENSOR_H_
