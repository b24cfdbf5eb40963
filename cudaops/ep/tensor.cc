#include "tensor.h"

#include <algorithm>
#include <stdexcept>

#include "launch.h"

namespace cosetq::ep {

std::string Text(const Shape& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? "," : "") + std::to_string(shape[i]);
  return out + "]";
}

Shape Strides(const Shape& shape) {
  Shape strides(shape.size());
  int64_t step = 1;
  for (size_t d = shape.size(); d-- > 0;) {
    strides[d] = step;
    step *= shape[d];
  }
  return strides;
}

int Axis(int64_t axis, size_t rank) {
  const int64_t n = static_cast<int64_t>(rank);
  if (axis < -n || axis >= n) {
    throw std::invalid_argument("axis " + std::to_string(axis) + " of a tensor with " +
                                std::to_string(rank) + " dimensions");
  }
  return static_cast<int>(axis < 0 ? axis + n : axis);
}

template <size_t N>
Layout<N> MakeLayout(const Shape& shape, const std::array<Shape, N>& strides) {
  Layout<N> out = {};
  for (size_t d = shape.size(); d-- > 0;) {
    if (shape[d] == 1) continue;
    const int dim = CheckedCount(shape[d]);
    const int last = out.rank - 1;
    bool even = out.rank > 0;
    for (size_t n = 0; n < N && even; ++n) even = int64_t{out.strides[n][last]} * out.dims[last] == strides[n][d];
    if (even) {
      out.dims[last] = CheckedCount(int64_t{out.dims[last]} * dim);
      continue;
    }
    if (out.rank == kMaxRank) throw std::invalid_argument("more than 8 dimensions that cannot be joined: " + Text(shape));
    out.dims[out.rank] = dim;
    for (size_t n = 0; n < N; ++n) out.strides[n][out.rank] = static_cast<int>(strides[n][d]);
    ++out.rank;
  }
  if (out.rank == 0) out.dims[out.rank++] = 1;
  for (int d = 0; d < out.rank; ++d) out.by[d] = Divisor(std::max(1, out.dims[d]));
  return out;
}

template Layout<1> MakeLayout(const Shape&, const std::array<Shape, 1>&);
template Layout<2> MakeLayout(const Shape&, const std::array<Shape, 2>&);
template Layout<3> MakeLayout(const Shape&, const std::array<Shape, 3>&);
template Layout<6> MakeLayout(const Shape&, const std::array<Shape, 6>&);

Shape BroadcastStrides(const Shape& from, const Shape& to) {
  const Shape own = Strides(from);
  Shape strides(to.size(), 0);
  if (from.size() > to.size())
    throw std::invalid_argument(Text(from) + " cannot be broadcast to " + Text(to));
  const size_t shift = to.size() - from.size();
  for (size_t d = 0; d < from.size(); ++d) {
    if (from[d] == to[shift + d]) {
      strides[shift + d] = from[d] == 1 ? 0 : own[d];
    } else if (from[d] != 1) {
      throw std::invalid_argument(Text(from) + " cannot be broadcast to " + Text(to));
    }
  }
  return strides;
}

Shape BroadcastShape(const std::vector<Shape>& shapes) {
  Shape out;
  for (const Shape& s : shapes) {
    if (s.size() > out.size()) out.insert(out.begin(), s.size() - out.size(), 1);
    for (size_t d = 0; d < s.size(); ++d) {
      int64_t& dim = out[out.size() - s.size() + d];
      if (dim == 1) {
        dim = s[d];
      } else if (s[d] != 1 && s[d] != dim) {
        throw std::invalid_argument("shapes " + Text(out) + " and " + Text(s) +
                                    " cannot be broadcast against each other");
      }
    }
  }
  return out;
}

}  // namespace cosetq::ep
