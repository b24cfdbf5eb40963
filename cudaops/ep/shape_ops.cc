// Operators on shapes: they cost nothing, or they tell a shape.

#include <algorithm>
#include <stdexcept>

#include "operator.h"

namespace cosetq::ep {
namespace {

void RunShape(Call& call) {
  const Shape& shape = call.in(0).shape;
  const int64_t rank = static_cast<int64_t>(shape.size());
  const auto limit = [&](const char* name, int64_t otherwise) {
    const int64_t at = call.node.attributes.Int(name, otherwise);
    return std::clamp<int64_t>(at < 0 ? at + rank : at, 0, rank);
  };
  const int64_t start = limit("start", 0), end = std::max(start, limit("end", rank));
  const Tensor y = call.Out(0, Type::kInt64, {end - start});
  std::copy(shape.begin() + start, shape.begin() + end, y.data<int64_t>());
}

void RunSize(Call& call) {
  *call.Out(0, Type::kInt64, {}).data<int64_t>() = call.in(0).count();
}

// Gives the first input another shape, where it lies unless it has to be copied for that.
void GiveShape(Call& call, const Shape& shape) {
  if (call.lies(0) != nullptr) {
    const std::optional<Strided> lies = call.lies(0)->Reshaped(shape);
    if (lies && call.Lie(0, call.in(0), *lies)) return;
  }
  call.View(0, call.Whole(0), shape);
}

void RunReshape(Call& call) {
  const Tensor& x = call.in(0);
  Shape shape = call.Axes(1, "shape");
  for (size_t d = 0; d < shape.size(); ++d) {
    if (shape[d] == 0 && call.node.attributes.Int("allowzero", 0) == 0) shape[d] = x.shape.at(d);
  }
  const auto open = std::find(shape.begin(), shape.end(), -1);
  if (open != shape.end()) {
    *open = 1;
    Shape known = shape, own = x.shape;
    if (Count(shape) == 0) {
      // Of what is empty either way, the dimensions that are not zero decide.
      for (Shape* s : {&known, &own}) std::replace(s->begin(), s->end(), int64_t{0}, int64_t{1});
    }
    *open = Count(own) / Count(known);
  }
  if (Count(shape) != x.count())
    throw std::invalid_argument("Reshape of " + Text(x.shape) + " to " + Text(shape));
  GiveShape(call, shape);
}

void RunFlatten(Call& call) {
  const Tensor& x = call.in(0);
  const int64_t rank = static_cast<int64_t>(x.shape.size());
  int64_t axis = call.node.attributes.Int("axis", 1);
  if (axis != rank) axis = Axis(axis, x.shape.size());
  const auto cut = x.shape.begin() + axis;
  GiveShape(call, {Count(Shape(x.shape.begin(), cut)), Count(Shape(cut, x.shape.end()))});
}

void RunSqueeze(Call& call) {
  const Tensor& x = call.in(0);
  const std::vector<int64_t> axes = call.Axes(1);
  std::vector<bool> drop(x.shape.size(), false);
  for (size_t d = 0; d < x.shape.size(); ++d) drop[d] = axes.empty() && x.shape[d] == 1;
  for (size_t d : Axes(axes, x.shape.size())) {
    if (x.shape[d] != 1) throw std::invalid_argument("Squeeze of dimension " + std::to_string(d) + " of " + Text(x.shape) + ", which is not 1");
    drop[d] = true;
  }
  Shape shape;
  for (size_t d = 0; d < x.shape.size(); ++d) {
    if (!drop[d]) shape.push_back(x.shape[d]);
  }
  GiveShape(call, shape);
}

void RunUnsqueeze(Call& call) {
  const Tensor& x = call.in(0);
  const std::vector<int64_t> axes = call.Axes(1);
  Shape shape(x.shape.size() + axes.size(), -1);
  for (size_t d : Axes(axes, shape.size())) shape[d] = 1;
  size_t next = 0;
  for (int64_t& dim : shape) {
    if (dim < 0) dim = x.shape.at(next++);
  }
  GiveShape(call, shape);
}

void RunIdentity(Call& call) { GiveShape(call, call.in(0).shape); }

}  // namespace

std::vector<Operator> ShapeOperators() {
  std::vector<Operator> all = {
      {"Shape", RunShape, {kAny}},
      {"Size", RunSize, {kAny}},
      {"Reshape", RunReshape, {kAny, kIndices}, 2},
      {"Flatten", RunFlatten, {kAny}},
      {"Squeeze", RunSqueeze, {kAny, kIndices}, 2},
      {"Unsqueeze", RunUnsqueeze, {kAny, kIndices}, 2},
      {"Identity", RunIdentity, {kAny}},
  };
  for (Operator& op : all) op.strided_inputs = 1;
  return all;
}

}  // namespace cosetq::ep
