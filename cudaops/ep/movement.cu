// Operators that move elements without looking at them.

#include <algorithm>
#include <atomic>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "launch.h"
#include "movement.h"
#include "operator.h"

namespace cosetq::ep {
namespace {

std::atomic<int64_t> moves;

template <typename T>
struct MoveKernel {
  Layout<2> layout;
  const T* x;
  T* y;
  COSETQ_HD void operator()(int i) const {
    int at[2];
    layout.At(i, at);
    y[at[1]] = x[at[0]];
  }
};

#ifdef __CUDACC__

constexpr int kTile = 32, kTileRows = 8;

// Swaps two dimensions by tiles in shared memory, so that neither reads nor writes are far apart: of one elements of y lie together, of the other
// one those of x. The other dimensions are walked through by the layout.
template <typename T>
__global__ void __launch_bounds__(kTile * kTileRows) SwapTiles(const __grid_constant__ Layout<2> others, const T* x, T* y, int y_count, int x_count, int x_step,
                                                                int y_step, Divisor by_y_tiles, Divisor by_x_tiles) {
  __shared__ T tile[kTile][kTile + 1];
  Begin();
  const auto block = static_cast<int>(blockIdx.x);
  const int y_tiles = (y_count + kTile - 1) / kTile, x_tiles = (x_count + kTile - 1) / kTile;
  const int rest = by_y_tiles.Of(block), other = by_x_tiles.Of(rest);
  const int y0 = (block - rest * y_tiles) * kTile, x0 = (rest - other * x_tiles) * kTile;
  const auto along = static_cast<int>(threadIdx.x % kTile), across = static_cast<int>(threadIdx.x / kTile);
  int at[2];
  others.At(other, at);
#pragma unroll
  for (int r = 0; r < kTile; r += kTileRows) {
    if (y0 + across + r < y_count && x0 + along < x_count) tile[across + r][along] = x[at[0] + (y0 + across + r) * x_step + x0 + along];
  }
  __syncthreads();
#pragma unroll
  for (int r = 0; r < kTile; r += kTileRows) {
    if (x0 + across + r < x_count && y0 + along < y_count) y[at[1] + (x0 + across + r) * y_step + y0 + along] = tile[along][across + r];
  }
}

#endif

// Moves what lies together in y along the first dimension and in x along another one, if there is enough of it; false, and nothing is done, otherwise.
template <typename T>
bool SwapOnDevice(Stream& stream, const Layout<2>& layout, int64_t count, const T* x, T* y) {
  (void)stream, (void)layout, (void)count, (void)x, (void)y;
#ifdef __CUDACC__
  constexpr int kLeast = 16;
  int d = 1;
  while (d < layout.rank && layout.strides[0][d] != 1) ++d;
  if (stream.on_host() || layout.strides[1][0] != 1 || d == layout.rank || layout.dims[0] < kLeast || layout.dims[d] < kLeast) return false;
  Layout<2> others = {};
  for (int from = 1; from < layout.rank; ++from) {
    if (from == d) continue;
    const int to = others.rank++;
    others.dims[to] = layout.dims[from];
    others.by[to] = layout.by[from];
    for (int n = 0; n < 2; ++n) others.strides[n][to] = layout.strides[n][from];
  }
  if (others.rank == 0) {  // a walk over one place
    others.rank = others.dims[0] = 1;
    others.by[0] = Divisor(1);
  }
  const int y_tiles = (layout.dims[0] - 1) / kTile + 1, x_tiles = (layout.dims[d] - 1) / kTile + 1;
  const int64_t blocks = count / layout.dims[0] / layout.dims[d] * y_tiles * x_tiles;
  Launch(stream, SwapTiles<T>, static_cast<unsigned>(CheckedCount(blocks)), kTile * kTileRows, 0, others, x, y, layout.dims[0], layout.dims[d], layout.strides[0][0],
         layout.strides[1][d], Divisor(y_tiles), Divisor(x_tiles));
  return true;
#else
  return false;
#endif
}

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

// Rows of a result, each of which has one of every tensor after the other.
template <typename T>
struct JoinKernel {
  static constexpr int kMost = 4;
  const T* from[kMost];
  T* to;
  Divisor width;
  int tensors, columns;
  int ends[kMost];  // columns
  COSETQ_HD void operator()(int i) const {
    const int row = width.Of(i), column = i - row * columns;
    int begin = 0;
COSETQ_UNROLL
    for (int t = 0; t < kMost; ++t) {
      if (t < tensors && column >= begin && column < ends[t]) to[i] = from[t][static_cast<int64_t>(row) * (ends[t] - begin) + column - begin];
      begin = ends[t];
    }
  }
};

// By one kernel where a few inputs lie whole, and it may count their numbers.
bool JoinAtOnce(Call& call, const std::vector<size_t>& inputs, int64_t width, const Tensor& y) {
  if (call.stream.on_host() || inputs.empty() || inputs.size() > JoinKernel<Piece>::kMost || y.count() > INT32_MAX || y.count() == 0) return false;
  const size_t size = SizeOf(y.type);
  const int64_t rows = y.count() / width;
  size_t run = Together(size, {}, {y.data()});
  for (size_t i : inputs) {
    if (call.lies(i) != nullptr) return false;
    run = std::min(run, Together(size, {call.in(i).count() / rows}, {call.in(i).data()}));
  }
  ForSize(run * size, [&](auto element) {
    using T = decltype(element);
    JoinKernel<T> join = {};
    for (size_t i : inputs) {
      join.from[join.tensors] = call.in(i).data<T>();
      join.columns += static_cast<int>(call.in(i).count() / rows / static_cast<int64_t>(run));
      join.ends[join.tensors++] = join.columns;
    }
    join.to = y.data<T>();
    join.width = Divisor(join.columns);
    ++moves;
    ForEach(call.stream, y.count() / static_cast<int64_t>(run), join);
  });
  return true;
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
  if (JoinAtOnce(call, there, shape[axis] * strides[axis], y)) return;
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

void Move(Stream& stream, const Shape& shape, const Tensor& x, int64_t x_first, const Shape& x_strides,
          const Tensor& y, int64_t y_first, const Shape& y_strides) {
  if (Count(shape) == 0) return;
  if (!stream.on_host()) ++moves;
  Layout<2> layout = MakeLayout<2>(shape, {x_strides, y_strides});
  const size_t size = SizeOf(x.type);
  const char* const from = x.data<char>() + x_first * static_cast<int64_t>(size);
  char* const to = y.data<char>() + y_first * static_cast<int64_t>(size);
  int64_t count = Count(shape);
  size_t run = 1;  // elements that move as one
  if (layout.strides[0][0] == 1 && layout.strides[1][0] == 1) {
    if (layout.rank == 1) return stream.Copy(to, from, static_cast<size_t>(count) * size);
    int64_t shared = layout.dims[0];  // has the factors of all dimensions and strides
    for (int d = 1; d < layout.rank; ++d) shared = std::gcd(std::gcd(shared, layout.strides[0][d]), layout.strides[1][d]);
    run = Together(size, {shared}, {from, to});
    const auto n = static_cast<int>(run);
    layout.dims[0] /= n;
    layout.by[0] = Divisor(layout.dims[0]);
    for (int d = 1; d < layout.rank; ++d) {
      for (auto& strides : layout.strides) strides[d] /= n;
    }
    count /= n;
  }
  ForSize(run * size, [&](auto element) {
    using T = decltype(element);
    const T* const x_elements = reinterpret_cast<const T*>(from);
    T* const y_elements = reinterpret_cast<T*>(to);
    if (!SwapOnDevice(stream, layout, count, x_elements, y_elements)) ForEach(stream, count, MoveKernel<T>{layout, x_elements, y_elements});
  });
}

const Operator& PickOperator() {
  static const Operator* pick = [] {
    auto* op = new Operator{"", RunPick, {kAny}};
    op->strided_inputs = 1;
    return op;
  }();
  return *pick;
}

int64_t TotalMoves() { return moves; }

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
