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

// Adds a factor within those from one on, of which it may continue the last one.
void Add(std::vector<Strided::Factor>* to, size_t from, const Strided::Factor& f) {
  if (f.size == 1) return;
  if (to->size() > from && to->back().stride == f.size * f.stride) {
    to->back() = {to->back().size * f.size, f.stride};
  } else {
    to->push_back(f);
  }
}

// All of them, as few as there can be.
std::vector<Strided::Factor> Merged(const std::vector<Strided::Factor>& factors) {
  std::vector<Strided::Factor> all;
  all.reserve(factors.size());
  for (const Strided::Factor& f : factors) Add(&all, 0, f);
  return all;
}

}  // namespace

Strided::Strided(const Shape& shape) {
  factors_.reserve(shape.size());
  ends_.reserve(shape.size());
  const Shape own = Strides(shape);
  for (size_t d = 0; d < shape.size(); ++d) {
    if (shape[d] != 1) factors_.push_back({shape[d], own[d]});
    End();
  }
}

Shape Strided::shape() const {
  Shape shape;
  for (size_t d = 0; d < rank(); ++d) shape.push_back(SizeOf((*this)[d]));
  return shape;
}

bool Strided::whole() const {
  const std::vector<Factor> all = Merged(factors_);
  return all.empty() || (all.size() == 1 && all[0].stride == 1);
}

Shape Strided::sizes() const {
  Shape sizes;
  for (const Factor& f : factors_) sizes.push_back(f.size);
  return sizes;
}

Shape Strided::strides() const {
  Shape strides;
  for (const Factor& f : factors_) strides.push_back(f.stride);
  return strides;
}

std::optional<Shape> Strided::Simple() const {
  Shape strides;
  for (size_t d = 0; d < rank(); ++d) {
    const Dimension dim = (*this)[d];
    if (dim.size() > 1) return std::nullopt;
    strides.push_back(dim.empty() ? 0 : dim[0].stride);
  }
  return strides;
}

Strided Strided::Transposed(const std::vector<size_t>& order) const {
  Strided out;
  for (size_t d : order) {
    const Dimension dim = (*this)[d];
    out.factors_.insert(out.factors_.end(), dim.begin(), dim.end());
    out.End();
  }
  return out;
}

Strided Strided::Expanded(const Shape& shape) const {
  const Shape own = this->shape();
  if (own.size() > shape.size()) throw std::invalid_argument(Text(own) + " cannot be broadcast to " + Text(shape));
  Strided out;
  const size_t shift = shape.size() - own.size();
  for (size_t d = 0; d < shape.size(); ++d) {
    const bool there = d >= shift && own[d - shift] == shape[d];
    if (!there && d >= shift && own[d - shift] != 1) throw std::invalid_argument(Text(own) + " cannot be broadcast to " + Text(shape));
    if (there) {
      const Dimension dim = (*this)[d - shift];
      out.factors_.insert(out.factors_.end(), dim.begin(), dim.end());
    } else if (shape[d] != 1) {
      out.factors_.push_back({shape[d], 0});
    }
    out.End();
  }
  return out;
}

std::optional<Strided> Strided::Reshaped(const Shape& shape) const {
  std::vector<Factor> all = Merged(factors_);
  if (Count(shape) != SizeOf({all.data(), all.data() + all.size()}) || Count(shape) == 0) return std::nullopt;
  Strided out;
  size_t next = 0;
  for (int64_t left : shape) {
    const size_t from = out.factors_.size();
    while (left > 1) {
      Factor& f = all.at(next);
      if (left % f.size == 0) {
        left /= f.size;
        Add(&out.factors_, from, f);
        ++next;
        continue;
      }
      if (f.size % left != 0) return std::nullopt;
      f.size /= left;
      Add(&out.factors_, from, {left, f.stride * f.size});
      left = 1;
    }
    out.End();
  }
  return out;
}

std::optional<Strided> Strided::Cut(size_t dim, int64_t first, int64_t size, int64_t step, int64_t* begin) const {
  if ((*this)[dim].size() > 1) return std::nullopt;
  const int64_t stride = (*this)[dim].empty() ? 0 : (*this)[dim][0].stride;
  Strided out;
  for (size_t d = 0; d < rank(); ++d) {
    if (d == dim) {
      if (size != 1) out.factors_.push_back({size, stride * step});
    } else {
      const Dimension own = (*this)[d];
      out.factors_.insert(out.factors_.end(), own.begin(), own.end());
    }
    out.End();
  }
  *begin = first * stride;
  return out;
}

}  // namespace cosetq::ep
