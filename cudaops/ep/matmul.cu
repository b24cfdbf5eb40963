#include "matmul.h"

#include <algorithm>
#include <vector>

#include "launch.h"

#ifdef __CUDACC__
#include "cublas.h"
#include "errors.h"
#endif

namespace cosetq::ep {
namespace {

template <typename T>
COSETQ_HD void Store(const Product& p, const T* d, T* c, int64_t batch, int row, int column, float sum) {
  sum *= p.alpha;
  if (d != nullptr) sum += p.beta * ToFloat(d[row * p.d_row + column * p.d_column]);
  c[batch * p.c_batch + row * p.c_row + column] = FromFloat<T>(Apply(p.f, sum));
}

template <typename T>
void MultiplyOnHost(const Product& p, const T* a, const T* b, const T* d, T* c) {
  std::vector<float> sums(static_cast<size_t>(p.n));
  for (int batch = 0; batch < p.batches; ++batch) {
    int at[2];
    p.batch.At(batch, at);
    for (int row = 0; row < p.m; ++row) {
      std::fill(sums.begin(), sums.end(), 0.0f);
      for (int k = 0; k < p.k; ++k) {
        const float x = ToFloat(a[at[0] + row * p.a_row + k * p.a_column]);
        const T* y = b + at[1] + k * p.b_row;
        for (int column = 0; column < p.n; ++column)
          sums[static_cast<size_t>(column)] += x * ToFloat(y[column * p.b_column]);
      }
      for (int column = 0; column < p.n; ++column)
        Store(p, d, c, batch, row, column, sums[static_cast<size_t>(column)]);
    }
  }
}

#ifdef __CUDACC__

constexpr int kDepth = 16;

// What a thread loads of kDepth columns of kRows rows of a matrix and stores by columns: element e of it is e steps further in both, as neighbours in
// a block follow whichever stride of the matrix is 1.
template <typename T, int kRows, int kThreads>
struct Slice {
  static constexpr int kCount = kRows * kDepth / kThreads, kStride = kRows + 4;
  static_assert(kRows * kDepth % kThreads == 0 && kThreads % kRows == 0 && kThreads % kDepth == 0);

  const T* from;
  int row, column, row_step, column_step, rows, columns;
  int64_t step, advance;
  float next[kCount];

  __device__ __forceinline__ Slice(const T* matrix, int first, int matrix_rows, int matrix_columns, int64_t row_stride, int64_t column_stride)
      : rows(matrix_rows), columns(matrix_columns) {
    const int thread = static_cast<int>(threadIdx.x);
    const bool by_column = column_stride == 1;
    row = first + (by_column ? thread / kDepth : thread % kRows);
    column = by_column ? thread % kDepth : thread / kRows;
    row_step = by_column ? kThreads / kDepth : 0;
    column_step = by_column ? 0 : kThreads / kRows;
    from = matrix + row * row_stride + column * column_stride;
    step = row_step * row_stride + column_step * column_stride;
    advance = kDepth * column_stride;
    rows -= row;
    row -= first;
  }
  __device__ __forceinline__ void Load() {
#pragma unroll
    for (int e = 0; e < kCount; ++e)
      next[e] = e * row_step < rows && column + e * column_step < columns ? ToFloat(from[e * step]) : 0.0f;
    from += advance;
    columns -= kDepth;
  }
  __device__ __forceinline__ void Store(float* to) const {
#pragma unroll
    for (int e = 0; e < kCount; ++e) to[(column + e * column_step) * kStride + row + e * row_step] = next[e];
  }
};

// A block makes a tile of kM x kN, a thread kRows x 4 of it. While it multiplies kDepth columns of A and rows of B it loads the next.
template <int kM, int kN, int kRows>
struct Tile {
  static constexpr int kColumns = 4, kThreads = kM / kRows * (kN / kColumns);
};

__device__ __forceinline__ void StoreFour(float* c, float alpha, const float (&sum)[4]) {
  *reinterpret_cast<float4*>(c) = make_float4(sum[0] * alpha, sum[1] * alpha, sum[2] * alpha, sum[3] * alpha);
}
__device__ __forceinline__ void StoreFour(Half* c, float alpha, const float (&sum)[4]) {
  const __half2 low = __floats2half2_rn(sum[0] * alpha, sum[1] * alpha), high = __floats2half2_rn(sum[2] * alpha, sum[3] * alpha);
  __half2* out = reinterpret_cast<__half2*>(c);
  out[0] = low;
  out[1] = high;
}

template <typename T, int kM, int kN, int kRows>
__global__ void __launch_bounds__(Tile<kM, kN, kRows>::kThreads) MultiplyKernel(Product p, const T* a, const T* b, const T* d, T* c) {
  using Size = Tile<kM, kN, kRows>;
  constexpr int kColumns = Size::kColumns;
  using SliceA = Slice<T, kM, Size::kThreads>;
  using SliceB = Slice<T, kN, Size::kThreads>;  // of B^T
  __shared__ __align__(16) float as[2][kDepth * SliceA::kStride], bs[2][kDepth * SliceB::kStride];
  Begin();
  int at[2];
  const int batch = p.first + static_cast<int>(blockIdx.z);
  p.batch.At(batch, at);
  const int row0 = static_cast<int>(blockIdx.y) * kM, column0 = static_cast<int>(blockIdx.x) * kN;
  const int thread = static_cast<int>(threadIdx.x), ty = thread / (kN / kColumns), tx = thread % (kN / kColumns);
  SliceA slice_a(a + at[0], row0, p.m, p.k, p.a_row, p.a_column);
  SliceB slice_b(b + at[1], column0, p.n, p.k, p.b_column, p.b_row);
  float sum[kRows][kColumns] = {};
  slice_a.Load();
  slice_b.Load();
  slice_a.Store(as[0]);
  slice_b.Store(bs[0]);
  __syncthreads();
  int half = 0;
  for (int k0 = 0; k0 < p.k; k0 += kDepth, half ^= 1) {
    const bool more = k0 + kDepth < p.k;
    if (more) {
      slice_a.Load();
      slice_b.Load();
    }
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
      float x[kRows];
#pragma unroll
      for (int i = 0; i < kRows; i += 4)
        *reinterpret_cast<float4*>(x + i) = *reinterpret_cast<const float4*>(&as[half][k * SliceA::kStride + ty * kRows + i]);
      const float4 four = *reinterpret_cast<const float4*>(&bs[half][k * SliceB::kStride + tx * kColumns]);
      const float y[kColumns] = {four.x, four.y, four.z, four.w};
#pragma unroll
      for (int i = 0; i < kRows; ++i)
#pragma unroll
        for (int j = 0; j < kColumns; ++j) sum[i][j] += x[i] * y[j];
    }
    if (more) {
      slice_a.Store(as[half ^ 1]);
      slice_b.Store(bs[half ^ 1]);
    }
    __syncthreads();
  }
  const int column = column0 + tx * kColumns;
  if (d == nullptr && p.f.kind == Unary::kIdentity && (p.n | p.c_row | p.c_batch) % kColumns == 0 && reinterpret_cast<uintptr_t>(c) % (kColumns * sizeof(T)) == 0) {
    if (column >= p.n) return;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int row = row0 + ty * kRows + i;
      if (row < p.m) StoreFour(c + batch * p.c_batch + row * p.c_row + column, p.alpha, sum[i]);
    }
    return;
  }
  // By way of memory, so that the machine code has all functions once and not for each element.
  float all[kRows * kColumns];
#pragma unroll
  for (int e = 0; e < kRows * kColumns; ++e) all[e] = sum[e / kColumns][e % kColumns];
#pragma unroll 1
  for (int e = 0; e < kRows * kColumns; ++e) {
    const int row = row0 + ty * kRows + e / kColumns;
    if (row < p.m && column + e % kColumns < p.n) Store(p, d, c, batch, row, column + e % kColumns, all[e]);
  }
}

// For a few rows: a warp makes one element at a time, and reads B once.
template <typename T>
__global__ void __launch_bounds__(256) MultiplyFewKernel(Product p, const T* a, const T* b, const T* d, T* c) {
  Begin();
  int at[2];
  const int batch = p.first + static_cast<int>(blockIdx.z);
  p.batch.At(batch, at);
  a += at[0];
  b += at[1];
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int column = static_cast<int>(blockIdx.x * 8 + threadIdx.x / 32);
  if (column >= p.n) return;
  for (int row = 0; row < p.m; ++row) {
    float sum = 0;
    for (int k = lane; k < p.k; k += 32)
      sum += ToFloat(a[row * p.a_row + k * p.a_column]) * ToFloat(b[k * p.b_row + column * p.b_column]);
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    if (lane == 0) Store(p, d, c, batch, row, column, sum);
  }
}

// For a few rows where columns of B are next to each other: a lane has a column, and the warps of a block share its rows.
template <typename T>
__global__ void __launch_bounds__(256) MultiplyFewColumnsKernel(Product p, const T* a, const T* b, const T* d, T* c) {
  constexpr int kWarps = 8;
  __shared__ float sums[kWarps][32];
  Begin();
  int at[2];
  const int batch = p.first + static_cast<int>(blockIdx.z);
  p.batch.At(batch, at);
  a += at[0];
  b += at[1];
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32), row = static_cast<int>(blockIdx.y);
  const int column = static_cast<int>(blockIdx.x) * 32 + lane;
  float sum = 0;
  if (column < p.n) {
#pragma unroll 4
    for (int k = warp; k < p.k; k += kWarps) sum += ToFloat(a[row * p.a_row + k * p.a_column]) * ToFloat(b[k * p.b_row + column]);
  }
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || column >= p.n) return;
  for (int w = 1; w < kWarps; ++w) sum += sums[w][lane];
  Store(p, d, c, batch, row, column, sum);
}

template <typename T, int kM, int kN, int kRows>
void LaunchTiles(Stream& stream, const Product& p, const T* a, const T* b, const T* d, T* c) {
  const dim3 grid(static_cast<unsigned>((p.n - 1) / kN + 1), static_cast<unsigned>((p.m - 1) / kM + 1), static_cast<unsigned>(p.batches));
  Launch(stream, MultiplyKernel<T, kM, kN, kRows>, grid, Tile<kM, kN, kRows>::kThreads, 0, p, a, b, d, c);
}

// What a product begins with, beta * D, or ends with, f, where cuBLAS does what lies between.
template <typename T>
struct Around {
  int m, n;
  int64_t c_row, c_batch, d_row, d_column;
  float beta;
  UnaryFunction f;
  const T* d;
  T* c;

  COSETQ_HD void operator()(int i) const {
    const int column = i % n, row = i / n % m, batch = i / n / m;
    T& at = c[batch * c_batch + row * c_row + column];
    at = FromFloat<T>(d != nullptr ? beta * ToFloat(d[row * d_row + column * d_column]) : Apply(f, ToFloat(at)));
  }
};

// A factor as cuBLAS takes it, which wants rows or columns to lie together.
bool FactorOf(int64_t rows, int64_t columns, int64_t row, int64_t column, int64_t batch, const void* data, cuda::Factor* factor) {
  if (columns == 1) column = 1;
  if (rows == 1) row = column == 1 ? columns : 1;
  const bool transposed = column != 1;
  if (transposed && row != 1) return false;
  *factor = {data, transposed ? column : row, transposed, batch};
  return factor->ld >= (transposed ? rows : columns) && factor->ld <= INT32_MAX;
}

// Products that are worth it, by cuBLAS where the machine has it. False: not done.
template <typename T>
bool MultiplyByCublas(Stream& stream, const Product& p, const T* a, const T* b, const T* d, T* c) {
  constexpr int64_t kFew = 4, kWorth = int64_t{1} << 25, kWorthFew = int64_t{1} << 23;  // products of two numbers; with few rows numbers of B
  const int64_t numbers = int64_t{p.n} * p.k * p.batches;
  if (p.m <= kFew ? numbers < kWorthFew : numbers * p.m < kWorth) return false;
  if (p.batch.rank > 1 || int64_t{p.batches} * p.m * p.n > INT32_MAX) return false;
  cuda::Products products;
  const auto step = [&](size_t i) { return p.batches > 1 ? int64_t{p.batch.strides[i][0]} : 0; };
  if (!FactorOf(p.m, p.k, p.a_row, p.a_column, step(0), a, &products.a) || !FactorOf(p.k, p.n, p.b_row, p.b_column, step(1), b, &products.b) ||
      !cuda::HasCublas())
    return false;
  products.half = sizeof(T) == sizeof(Half);
  products.m = p.m;
  products.n = p.n;
  products.k = p.k;
  products.count = p.batches;
  products.alpha = p.alpha;
  products.add = d != nullptr && p.beta != 0;
  products.c = c;
  products.ldc = p.c_row;
  products.c_batch = p.c_batch;
  const Around<T> around{p.m, p.n, p.c_row, p.c_batch, p.d_row, p.d_column, p.beta, p.f, d, c};
  const int64_t count = int64_t{p.batches} * p.m * p.n;
  if (products.add) ForEach(stream, count, around);
  const auto workspace = Buffer::OnDevice(stream.arena(), cuda::kCublasWorkspace);
  try {
    cuda::Multiply(products, workspace->data(), static_cast<cudaStream_t>(stream.handle()));
  } catch (const cuda::Error& e) {
    throw DeviceError(e.what());
  }
  if (p.f.kind != Unary::kIdentity) {
    Around<T> after = around;
    after.d = nullptr;
    ForEach(stream, count, after);
  }
  return true;
}

#endif

template <typename T>
void MultiplyAs(Stream& stream, const Product& p, const void* a, const void* b, const void* d, void* c) {
  const T *at = static_cast<const T*>(a), *bt = static_cast<const T*>(b), *dt = static_cast<const T*>(d);
  T* ct = static_cast<T*>(c);
#ifdef __CUDACC__
  if (!stream.on_host()) {
    constexpr int kMaxGrid = 65535, kSmallest = 32, kFew = 4;
    if (p.first == 0 && MultiplyByCublas(stream, p, at, bt, dt, ct)) return;
    if ((p.m - 1) / kSmallest >= kMaxGrid) throw DeviceError("a product of matrices with more than 2 million rows");
    if (p.batches > kMaxGrid) {  // in pieces
      Product piece = p;
      for (piece.first = 0; piece.first < p.batches; piece.first += kMaxGrid) {
        piece.batches = std::min(kMaxGrid, p.batches - piece.first);
        MultiplyAs<T>(stream, piece, a, b, d, c);
      }
      return;
    }
    const auto batches = static_cast<unsigned>(p.batches);
    // Large tiles read less, small ones leave no processor without one.
    constexpr int kEnough = 256;
    const auto blocks = [&](int m, int n) { return int64_t{(p.m - 1) / m + 1} * ((p.n - 1) / n + 1) * p.batches; };
    if (p.m <= kFew && p.b_row == 1) {
      Launch(stream, MultiplyFewKernel<T>, dim3((p.n - 1) / 8 + 1, 1, batches), 256, 0, p, at, bt, dt, ct);
    } else if (p.m <= kFew && p.b_column == 1) {
      Launch(stream, MultiplyFewColumnsKernel<T>, dim3((p.n - 1) / 32 + 1, p.m, batches), 256, 0, p, at, bt, dt, ct);
    } else if (blocks(128, 64) >= kEnough) {
      LaunchTiles<T, 128, 64, 8>(stream, p, at, bt, dt, ct);
    } else if (blocks(64, 64) >= kEnough) {
      LaunchTiles<T, 64, 64, 8>(stream, p, at, bt, dt, ct);
    } else {
      LaunchTiles<T, 32, 32, 4>(stream, p, at, bt, dt, ct);
    }
    return;
  }
#endif
  (void)stream;
  MultiplyOnHost(p, at, bt, dt, ct);
}

}  // namespace

void Multiply(Stream& stream, const Product& product, Type type, const void* a, const void* b, const void* d, void* c) {
  if (product.m == 0 || product.n == 0 || product.batches == 0) return;
  Product p = product;
  if (p.c_row == 0) p.c_row = p.n;
  if (p.c_batch == 0) p.c_batch = p.c_row * p.m;
  if (type == Type::kHalf) return MultiplyAs<Half>(stream, p, a, b, d, c);
  MultiplyAs<float>(stream, p, a, b, d, c);
}

}  // namespace cosetq::ep
