// The copies that moving operators are made of.

#include <algorithm>
#include <atomic>
#include <numeric>

#include "launch.h"
#include "movement.h"

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

bool Join(Stream& stream, const std::vector<const Tensor*>& tensors, int64_t width, const Tensor& y) {
  if (stream.on_host() || tensors.empty() || tensors.size() > JoinKernel<Piece>::kMost || y.count() > INT32_MAX || y.count() == 0) return false;
  const size_t size = SizeOf(y.type);
  const int64_t rows = y.count() / width;
  size_t run = Together(size, {}, {y.data()});
  for (const Tensor* x : tensors) run = std::min(run, Together(size, {x->count() / rows}, {x->data()}));
  ForSize(run * size, [&](auto element) {
    using T = decltype(element);
    JoinKernel<T> join = {};
    for (const Tensor* x : tensors) {
      join.from[join.tensors] = x->data<T>();
      join.columns += static_cast<int>(x->count() / rows / static_cast<int64_t>(run));
      join.ends[join.tensors++] = join.columns;
    }
    join.to = y.data<T>();
    join.width = Divisor(join.columns);
    ++moves;
    ForEach(stream, y.count() / static_cast<int64_t>(run), join);
  });
  return true;
}

int64_t TotalMoves() { return moves; }

}  // namespace cosetq::ep
