#include "tensor.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

#include "launch.h"

namespace cosetq::ep {

std::string Text(const Shape& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? "," : "") + std::to_string(shape[i]);
  return out + "]";
}

int64_t Count(const Shape& shape) {
  constexpr int64_t kMost = int64_t{1} << 60;
  int64_t most = 1;
  bool empty = false;
  for (int64_t d : shape) {
    if (d < 0) throw std::invalid_argument("a tensor of shape " + Text(shape));
    empty = empty || d == 0;
    if (d > 0 && most > kMost / d) throw std::invalid_argument("a tensor of shape " + Text(shape) + " is too large for any memory");
    most *= d > 0 ? d : 1;
  }
  return empty ? 0 : most;
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

std::vector<size_t> Axes(const std::vector<int64_t>& axes, size_t rank) {
  std::vector<size_t> out;
  for (int64_t axis : axes) {
    const auto d = static_cast<size_t>(Axis(axis, rank));
    if (std::find(out.begin(), out.end(), d) != out.end()) throw std::invalid_argument("axis " + std::to_string(axis) + " comes twice");
    out.push_back(d);
  }
  return out;
}

namespace {

// Kernels count places in int.
void CheckReach(const Shape& shape, const Shape& strides) {
  int64_t reach = 0;
  for (size_t d = 0; d < shape.size(); ++d) {
    if (shape[d] < 2) continue;
    const int64_t step = std::abs(strides[d]);
    if (step > INT32_MAX || (reach += (shape[d] - 1) * step) > INT32_MAX)
      throw DeviceError("a walk over " + Text(shape) + " in a tensor of more elements than the GPU kernels handle (2^31); use a smaller batch");
  }
}

}  // namespace

template <size_t N>
Layout<N> MakeLayout(const Shape& shape, const std::array<Shape, N>& strides) {
  if (Count(shape) > 0) {
    for (const Shape& own : strides) CheckReach(shape, own);
  }
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
template Layout<4> MakeLayout(const Shape&, const std::array<Shape, 4>&);
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
