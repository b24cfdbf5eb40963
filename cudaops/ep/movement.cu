// Operators that move elements without looking at them.

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "movement.h"
#include "operator.h"

namespace cosetq::ep {
namespace {

void RunTranspose(Call& call) {
  const size_t rank = call.in(0).shape.size();
  std::vector<int64_t> order = call.node.attributes.Ints("perm");
  if (order.empty()) {
    for (size_t d = rank; d-- > 0;) order.push_back(static_cast<int64_t>(d));
  }
  if (order.size() != rank) throw std::invalid_argument("Transpose of " + Text(call.in(0).shape) + " by perm " + Text(order));
  Rearrange(call, 0, call.in(0), call.AsItLies(0).Transposed(Axes(order, rank)));
}

void RunExpand(Call& call) {
  const Shape shape = BroadcastShape({call.in(0).shape, call.Integers(1)});
  if (call.AsItLies(0).Expanded(shape).sizes().size() > static_cast<size_t>(kMaxRank)) call.Whole(0);
  Rearrange(call, 0, call.in(0), call.AsItLies(0).Expanded(shape));
}

// The shape of x repeated along each dimension.
Shape Tiled(const Shape& x, const std::vector<int64_t>& repeats) {
  Shape shape;
  for (size_t d = 0; d < x.size(); ++d) shape.push_back(x[d] * repeats[d]);
  return shape;
}

void RepeatInto(Call& call, const Tensor& x, const std::vector<int64_t>& repeats, const Tensor& y) {
  const Shape own = Strides(x.shape);
  // Each dimension becomes two: which copy, and where in it.
  Shape walk, strides;
  for (size_t d = 0; d < x.shape.size(); ++d) {
    walk.insert(walk.end(), {repeats[d], x.shape[d]});
    strides.insert(strides.end(), {0, own[d]});
  }
  Move(call.stream, walk, x, 0, strides, y, 0, Strides(walk));
}

// The first of the dimensions up to end that one walk can repeat, those after them being done. Those that are not repeated it joins with their
// next ones.
size_t FirstRepeated(const Shape& x, const std::vector<int64_t>& repeats, size_t end) {
  bool joins = end < x.size();
  int rank = joins;
  size_t d = end;
  for (; d > 0; --d) {
    const bool wide = x[d - 1] > 1, repeated = repeats[d - 1] > 1;
    rank += (wide && !joins) + repeated;
    if (rank > kMaxRank - (d > 1)) break;  // those ahead are one more
    joins = !repeated && (joins || wide);
  }
  return d;
}

void RunTile(Call& call) {
  const Tensor& x = call.in(0);
  const std::vector<int64_t> repeats = call.Integers(1);
  if (repeats.size() != x.shape.size()) throw std::invalid_argument("Tile of " + Text(x.shape) + " by " + Text(repeats));
  const Tensor y = call.Out(0, x.type, Tiled(x.shape, repeats));
  if (y.count() == 0) return;
  Tensor from = x;
  size_t end = repeats.size();
  do {  // more than once only for five dimensions and more
    const size_t first = FirstRepeated(x.shape, repeats, end);
    std::vector<int64_t> some(repeats.size(), 1);
    std::copy(repeats.begin() + static_cast<int64_t>(first), repeats.begin() + static_cast<int64_t>(end), some.begin() + static_cast<int64_t>(first));
    const Tensor to = first == 0 ? y : call.Scratch(x.type, Tiled(from.shape, some));
    RepeatInto(call, from, some, to);
    from = to;
    end = first;
  } while (end > 0);
}

void RunSlice(Call& call) {
  const Tensor& x = call.in(0);
  const bool by_input = call.inputs() > 1;
  const std::vector<int64_t> starts = by_input ? call.Integers(1) : call.node.attributes.Ints("starts");
  const std::vector<int64_t> ends = by_input ? call.Integers(2) : call.node.attributes.Ints("ends");
  std::vector<int64_t> axes = call.Axes(3);
  if (axes.empty()) {
    for (size_t i = 0; i < starts.size(); ++i) axes.push_back(static_cast<int64_t>(i));
  }
  const std::vector<size_t> dims = Axes(axes, x.shape.size());
  const std::vector<int64_t> steps = call.has(4) ? call.Integers(4) : std::vector<int64_t>(starts.size(), 1);
  if (starts.size() != dims.size() || ends.size() != dims.size() || steps.size() != dims.size())
    throw std::invalid_argument("Slice of " + Text(x.shape) + " from " + Text(starts) + " to " + Text(ends) + " along " + Text(axes) + " by " + Text(steps));
  Strided lies = call.AsItLies(0);
  for (size_t d : dims) {
    if (lies[d].size() > 1) call.Whole(0), lies = call.AsItLies(0);
  }
  int64_t first = 0;
  for (size_t i = 0; i < dims.size(); ++i) {
    const size_t d = dims[i];
    const int64_t n = x.shape[d], step = steps[i];
    if (step == 0) throw std::invalid_argument("Slice with a step of 0");
    if (n == 0) continue;
    const auto clamp = [&](int64_t at, int64_t low, int64_t high) {
      return std::clamp(at < 0 ? at + n : at, low, high);
    };
    const int64_t start = step > 0 ? clamp(starts[i], 0, n) : clamp(starts[i], 0, n - 1);
    // Backwards the largest number means the end, as ONNX Runtime has it.
    const int64_t stop = step < 0 && (ends[i] == INT32_MAX || ends[i] == INT64_MAX) ? INT64_MIN : ends[i];
    const int64_t end = step > 0 ? clamp(stop, 0, n) : clamp(std::max(stop, -n - 1), -1, n - 1);
    const int64_t last = end - start - (step > 0 ? 1 : -1);  // from start; of the other sign than step where there is nothing
    int64_t begin = 0;
    lies = *lies.Cut(d, start, last != 0 && (last > 0) != (step > 0) ? 0 : last / step + 1, step, &begin);
    first += begin;
  }
  Rearrange(call, 0, From(x, first), lies);
}

void RunConcat(Call& call) {
  Shape shape = call.in(0).shape;
  const auto axis = static_cast<size_t>(Axis(call.node.attributes.Int("axis", 1), shape.size()));
  for (size_t i = 1; i < call.inputs(); ++i) {
    Shape alike = call.in(i).shape;
    if (alike.size() == shape.size()) {
      const int64_t added = std::exchange(alike[axis], shape[axis]);
      if (alike == shape) {
        shape[axis] += added;
        continue;
      }
    }
    throw std::invalid_argument("Concat along axis " + std::to_string(axis) + " of " + Text(call.in(0).shape) + " and " + Text(call.in(i).shape));
  }
  std::vector<size_t> there;
  for (size_t i = 0; i < call.inputs(); ++i) {
    if (call.in(i).shape[axis] > 0) there.push_back(i);
  }
  if (there.size() == 1) return Rearrange(call, 0, call.in(there[0]), call.AsItLies(there[0]));
  const Tensor y = call.Out(0, call.in(0).type, shape);
  const Shape strides = Strides(shape);
  std::vector<const Tensor*> whole;
  for (size_t i : there) {
    if (call.lies(i) == nullptr) whole.push_back(&call.in(i));
  }
  if (whole.size() == there.size() && Join(call.stream, whole, shape[axis] * strides[axis], y)) return;
  int64_t first = 0;
  for (size_t i : there) {
    if (!call.AsItLies(i).Simple()) call.Whole(i);
    const Tensor& x = call.in(i);
    Move(call.stream, x.shape, x, 0, *call.AsItLies(i).Simple(), y, first * strides[axis], strides);
    first += x.shape[axis];
  }
}

// A part of a dimension of the first input, which is copied first if it lies so that there is none.
Strided Cut(Call& call, size_t axis, int64_t first, int64_t size, int64_t step, int64_t* begin) {
  if (call.AsItLies(0)[axis].size() > 1) call.Whole(0);
  return *call.AsItLies(0).Cut(axis, first, size, step, begin);
}

void RunSplit(Call& call) {
  const Tensor& x = call.in(0);
  const auto axis = static_cast<size_t>(Axis(call.node.attributes.Int("axis", 0), x.shape.size()));
  const size_t parts = call.node.outputs.size();
  std::vector<int64_t> sizes = call.Axes(1, "split");
  if (sizes.empty()) {
    const int64_t each = (x.shape[axis] + static_cast<int64_t>(parts) - 1) / static_cast<int64_t>(parts);
    for (int64_t left = x.shape[axis]; sizes.size() < parts; left -= each)
      sizes.push_back(std::clamp<int64_t>(left, 0, each));
  }
  int64_t left = x.shape[axis];
  for (int64_t size : sizes) left = size < 0 || size > left ? -1 : left - size;
  if (left != 0 || sizes.size() != parts)
    throw std::invalid_argument("Split of " + std::to_string(x.shape[axis]) + " into " + std::to_string(parts) + " parts of " + Text(sizes));
  int64_t first = 0;
  for (size_t i = 0; i < parts; ++i) {
    int64_t begin = 0;
    const Strided part = Cut(call, axis, first, sizes[i], 1, &begin);
    Rearrange(call, i, From(x, begin), part);
    first += sizes[i];
  }
}

void RunPick(Call& call) {
  const Tensor& x = call.in(0);
  const auto axis = static_cast<size_t>(Axis(call.node.attributes.Int("axis", 0), x.shape.size()));
  const int64_t n = x.shape[axis], index = call.node.attributes.Int("index", 0), at = index < 0 ? index + n : index;
  if (at < 0 || at >= n) throw std::invalid_argument("index " + std::to_string(index) + " along axis " + std::to_string(axis) + " of " + Text(x.shape));
  int64_t begin = 0;
  const Strided one = Cut(call, axis, at, 1, 1, &begin);
  Shape shape = x.shape;
  shape.erase(shape.begin() + static_cast<std::ptrdiff_t>(axis));
  // Without a dimension of 1 nothing lies elsewhere; of nothing nothing has to.
  Rearrange(call, 0, From(x, begin), one.Reshaped(shape).value_or(Strided(shape)));
}

// Where the numbers of the blocks of a place go: into it, or out of it, as channels ahead of the others ("CRD") or behind.
void RunBlocks(Call& call, bool into) {
  const Tensor& x = call.in(0);
  const int64_t size = call.node.attributes.Int("blocksize", 0);
  const bool column_first = into && call.node.attributes.String("mode", "DCR") == "CRD";
  if (x.shape.size() != 4 || size < 1 || size > INT32_MAX || (into ? x.shape[1] % (size * size) : x.shape[2] % size + x.shape[3] % size) != 0)
    throw std::invalid_argument(call.node.op + " of " + Text(x.shape) + " by blocks of " + std::to_string(size));
  const int64_t n = x.shape[0], c = into ? x.shape[1] / (size * size) : x.shape[1], h = into ? x.shape[2] : x.shape[2] / size, w = into ? x.shape[3] : x.shape[3] / size;
  // The walk is over batches, channels, rows, rows of a block, columns, and columns of a block.
  const Shape walk = {n, c, h, size, w, size};
  const Shape wide = Strides({n, c, h, size, w, size}), by_block = Strides({n, size, size, c, h, w}), by_channel = Strides({n, c, size, size, h, w});
  const Shape deep = column_first ? Shape{by_channel[0], by_channel[1], by_channel[4], by_channel[2], by_channel[5], by_channel[3]}
                                  : Shape{by_block[0], by_block[3], by_block[4], by_block[1], by_block[5], by_block[2]};
  const Tensor y = call.Out(0, x.type, into ? Shape{n, c, h * size, w * size} : Shape{n, c * size * size, h, w});
  Move(call.stream, walk, x, 0, into ? deep : wide, y, 0, into ? wide : deep);
}

void RunDepthToSpace(Call& call) { RunBlocks(call, true); }
void RunSpaceToDepth(Call& call) { RunBlocks(call, false); }

std::string CheckDepthToSpace(const Graph&, const Node& node) {
  const std::string mode = node.attributes.String("mode", "DCR");
  return mode == "DCR" || mode == "CRD" ? "" : "this mode";
}

}  // namespace

const Operator& PickOperator() {
  static const Operator* pick = [] {
    auto* op = new Operator{"", RunPick, {kAny}};
    op->strided_inputs = 1;
    return op;
  }();
  return *pick;
}

void Rearrange(Call& call, size_t i, const Tensor& of, const Strided& lies) {
  if (call.Lie(i, of, lies)) return;
  const Shape sizes = lies.sizes();
  Move(call.stream, sizes, of, 0, lies.strides(), call.Out(i, of.type, lies.shape()), 0, Strides(sizes));
}

Tensor From(const Tensor& of, int64_t first) { return {of.type, of.shape, Buffer::Part(of.buffer, static_cast<size_t>(first) * SizeOf(of.type))}; }

std::vector<Operator> MovementOperators() {
  std::vector<Operator> all = {
      {"Transpose", RunTranspose, {kAny}},
      {"Expand", RunExpand, {kAny, kIndices}, 2},
      {"Tile", RunTile, {kAny, kIndices}, 2},
      {"Slice", RunSlice, {kAny, kIndices}, 0b11110},
      {"Concat", RunConcat, {kAny}},
      {"Split", RunSplit, {kAny, kIndices}, 2, 0, SIZE_MAX},
      {"SpaceToDepth", RunSpaceToDepth, {kAny}},
      {"DepthToSpace", RunDepthToSpace, {kAny}},
  };
  all.back().check = CheckDepthToSpace;
  for (Operator& op : all) {
    const std::string name = op.name;
    if (name == "Concat") op.strided_inputs = ~0u;
    if (name == "Transpose" || name == "Expand" || name == "Slice" || name == "Split") op.strided_inputs = 1;
  }
  return all;
}

}  // namespace cosetq::ep
