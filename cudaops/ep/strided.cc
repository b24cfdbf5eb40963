#include "strided.h"

#include <algorithm>
#include <stdexcept>

namespace cosetq::ep {
namespace {

int64_t SizeOf(const Strided::Dimension& dim) {
  int64_t size = 1;
  for (const Strided::Factor& f : dim) size *= f.size;
  return size;
}

// Adds a factor within those that are there, of which it may continue the last one.
void Add(Strided::Dimension* dim, const Strided::Factor& f) {
  if (f.size == 1) return;
  if (!dim->empty() && dim->back().stride == f.size * f.stride) {
    dim->back() = {dim->back().size * f.size, f.stride};
  } else {
    dim->push_back(f);
  }
}

}  // namespace

Strided::Strided(const Shape& shape) {
  const Shape own = Strides(shape);
  for (size_t d = 0; d < shape.size(); ++d) {
    dims_.emplace_back();
    if (shape[d] != 1) dims_.back().push_back({shape[d], own[d]});
  }
}

Shape Strided::shape() const {
  Shape shape;
  for (const Dimension& dim : dims_) shape.push_back(SizeOf(dim));
  return shape;
}

bool Strided::whole() const {
  Dimension all;
  for (const Dimension& dim : dims_) {
    for (const Factor& f : dim) Add(&all, f);
  }
  return all.empty() || (all.size() == 1 && all[0].stride == 1);
}

Shape Strided::sizes() const {
  Shape sizes;
  for (const Dimension& dim : dims_) {
    for (const Factor& f : dim) sizes.push_back(f.size);
  }
  return sizes;
}

Shape Strided::strides() const {
  Shape strides;
  for (const Dimension& dim : dims_) {
    for (const Factor& f : dim) strides.push_back(f.stride);
  }
  return strides;
}

std::optional<Shape> Strided::Simple() const {
  Shape strides;
  for (const Dimension& dim : dims_) {
    if (dim.size() > 1) return std::nullopt;
    strides.push_back(dim.empty() ? 0 : dim[0].stride);
  }
  return strides;
}

Strided Strided::Transposed(const std::vector<size_t>& order) const {
  Strided out{Shape()};
  for (size_t d : order) out.dims_.push_back(dims_.at(d));
  return out;
}

Strided Strided::Expanded(const Shape& shape) const {
  const Shape own = this->shape();
  if (own.size() > shape.size()) throw std::invalid_argument(Text(own) + " cannot be broadcast to " + Text(shape));
  Strided out{Shape()};
  const size_t shift = shape.size() - own.size();
  for (size_t d = 0; d < shape.size(); ++d) {
    const bool there = d >= shift && own[d - shift] == shape[d];
    if (!there && d >= shift && own[d - shift] != 1) throw std::invalid_argument(Text(own) + " cannot be broadcast to " + Text(shape));
    out.dims_.push_back(there ? dims_[d - shift] : shape[d] == 1 ? Dimension() : Dimension{{shape[d], 0}});
  }
  return out;
}

std::optional<Strided> Strided::Reshaped(const Shape& shape) const {
  Dimension all;
  for (const Dimension& dim : dims_) {
    for (const Factor& f : dim) Add(&all, f);
  }
  if (Count(shape) != SizeOf(all) || Count(shape) == 0) return std::nullopt;
  Strided out{Shape()};
  size_t next = 0;
  for (int64_t left : shape) {
    Dimension dim;
    while (left > 1) {
      Factor& f = all.at(next);
      if (left % f.size == 0) {
        left /= f.size;
        Add(&dim, f);
        ++next;
        continue;
      }
      if (f.size % left != 0) return std::nullopt;
      f.size /= left;
      Add(&dim, {left, f.stride * f.size});
      left = 1;
    }
    out.dims_.push_back(std::move(dim));
  }
  return out;
}

std::optional<Strided> Strided::Cut(size_t dim, int64_t first, int64_t size, int64_t step, int64_t* begin) const {
  if (dims_.at(dim).size() > 1) return std::nullopt;
  const int64_t stride = dims_[dim].empty() ? 0 : dims_[dim][0].stride;
  Strided out = *this;
  out.dims_[dim].clear();
  if (size != 1) out.dims_[dim].push_back({size, stride * step});
  *begin = first * stride;
  return out;
}

}  // namespace cosetq::ep
