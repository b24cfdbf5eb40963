#include "matmul.h"

#include <vector>

#include "launch.h"

namespace cosetq::ep {
namespace {

template <typename T>
COSETQ_HD void Store(const Product& p, const T* d, T* c, int64_t batch, int row, int column, float sum) {
  sum *= p.alpha;
  if (d != nullptr) sum += p.beta * ToFloat(d[row * p.d_row + column * p.d_column]);
  c[(batch * p.m + row) * p.n + column] = FromFloat<T>(Apply(p.f, sum));
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

// A block makes a tile of kM x kN, a thread kRows x 4 of it. While it multiplies kDepth columns of A and rows of B it loads the next.
template <int kM, int kN, int kRows>
struct Tile {
  static constexpr int kColumns = 4, kThreads = kM / kRows * (kN / kColumns);
  static constexpr int kLoadsA = kM * kDepth / kThreads, kLoadsB = kN * kDepth / kThreads;
  static_assert(kM * kDepth % kThreads == 0 && kN * kDepth % kThreads == 0 && kRows % 4 == 0);
};

template <typename T, int kM, int kN, int kRows>
__global__ void __launch_bounds__(Tile<kM, kN, kRows>::kThreads) MultiplyKernel(Product p, const T* a, const T* b, const T* d, T* c) {
  using Size = Tile<kM, kN, kRows>;
  constexpr int kColumns = Size::kColumns;
  __shared__ float as[2][kDepth][kM + 4], bs[2][kDepth][kN + 4];
  int at[2];
  p.batch.At(static_cast<int>(blockIdx.z), at);
  a += at[0];
  b += at[1];
  const int row0 = static_cast<int>(blockIdx.y) * kM, column0 = static_cast<int>(blockIdx.x) * kN;
  const int thread = static_cast<int>(threadIdx.x), ty = thread / (kN / kColumns), tx = thread % (kN / kColumns);
  // The fast index of a load follows whichever stride of the matrix is 1.
  const bool a_by_k = p.a_column == 1, b_by_k = p.b_column != 1;
  float next_a[Size::kLoadsA], next_b[Size::kLoadsB];
  const auto load = [&](int k0) {
#pragma unroll
    for (int e = 0; e < Size::kLoadsA; ++e) {
      const int i = thread + e * Size::kThreads, row = row0 + (a_by_k ? i / kDepth : i % kM), k = k0 + (a_by_k ? i % kDepth : i / kM);
      next_a[e] = row < p.m && k < p.k ? ToFloat(a[row * p.a_row + k * p.a_column]) : 0.0f;
    }
#pragma unroll
    for (int e = 0; e < Size::kLoadsB; ++e) {
      const int i = thread + e * Size::kThreads, column = column0 + (b_by_k ? i / kDepth : i % kN), k = k0 + (b_by_k ? i % kDepth : i / kN);
      next_b[e] = column < p.n && k < p.k ? ToFloat(b[k * p.b_row + column * p.b_column]) : 0.0f;
    }
  };
  const auto store = [&](int half) {
#pragma unroll
    for (int e = 0; e < Size::kLoadsA; ++e) {
      const int i = thread + e * Size::kThreads;
      as[half][a_by_k ? i % kDepth : i / kM][a_by_k ? i / kDepth : i % kM] = next_a[e];
    }
#pragma unroll
    for (int e = 0; e < Size::kLoadsB; ++e) {
      const int i = thread + e * Size::kThreads;
      bs[half][b_by_k ? i % kDepth : i / kN][b_by_k ? i / kDepth : i % kN] = next_b[e];
    }
  };
  float sum[kRows][kColumns] = {};
  load(0);
  store(0);
  __syncthreads();
  int half = 0;
  for (int k0 = 0; k0 < p.k; k0 += kDepth, half ^= 1) {
    const bool more = k0 + kDepth < p.k;
    if (more) load(k0 + kDepth);
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
      float x[kRows];
#pragma unroll
      for (int i = 0; i < kRows; i += 4) *reinterpret_cast<float4*>(x + i) = *reinterpret_cast<const float4*>(&as[half][k][ty * kRows + i]);
      const float4 four = *reinterpret_cast<const float4*>(&bs[half][k][tx * kColumns]);
      const float y[kColumns] = {four.x, four.y, four.z, four.w};
#pragma unroll
      for (int i = 0; i < kRows; ++i)
#pragma unroll
        for (int j = 0; j < kColumns; ++j) sum[i][j] += x[i] * y[j];
    }
    if (more) store(half ^ 1);
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i)
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      const int row = row0 + ty * kRows + i, column = column0 + tx * kColumns + j;
      if (row < p.m && column < p.n) Store(p, d, c, blockIdx.z, row, column, sum[i][j]);
    }
}

// For a few rows: a warp makes one element at a time, and reads B once.
template <typename T>
__global__ void __launch_bounds__(256) MultiplyFewKernel(Product p, const T* a, const T* b, const T* d, T* c) {
  int at[2];
  p.batch.At(static_cast<int>(blockIdx.z), at);
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
    if (lane == 0) Store(p, d, c, blockIdx.z, row, column, sum);
  }
}

// For a few rows where columns of B are next to each other: a lane has a column, and the warps of a block share its rows.
template <typename T>
__global__ void __launch_bounds__(256) MultiplyFewColumnsKernel(Product p, const T* a, const T* b, const T* d, T* c) {
  constexpr int kWarps = 8;
  __shared__ float sums[kWarps][32];
  int at[2];
  p.batch.At(static_cast<int>(blockIdx.z), at);
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
  Store(p, d, c, blockIdx.z, row, column, sum);
}

template <typename T, int kM, int kN, int kRows>
void LaunchTiles(cudaStream_t stream, const Product& p, const T* a, const T* b, const T* d, T* c) {
  const dim3 grid(static_cast<unsigned>((p.n - 1) / kN + 1), static_cast<unsigned>((p.m - 1) / kM + 1), static_cast<unsigned>(p.batches));
  MultiplyKernel<T, kM, kN, kRows><<<grid, Tile<kM, kN, kRows>::kThreads, 0, stream>>>(p, a, b, d, c);
}

#endif

template <typename T>
void MultiplyAs(Stream& stream, const Product& p, const void* a, const void* b, const void* d, void* c) {
  const T *at = static_cast<const T*>(a), *bt = static_cast<const T*>(b), *dt = static_cast<const T*>(d);
  T* ct = static_cast<T*>(c);
#ifdef __CUDACC__
  if (!stream.on_host()) {
    const auto s = static_cast<cudaStream_t>(stream.handle());
    constexpr int kMaxGrid = 65535, kSmallest = 32, kFew = 4;
    if (p.batches > kMaxGrid || (p.m - 1) / kSmallest >= kMaxGrid)
      throw DeviceError("a product of matrices with more than 65535 batches or 2 million rows");
    const auto batches = static_cast<unsigned>(p.batches);
    // Large tiles read less, small ones leave no processor without one.
    constexpr int kEnough = 256;
    const auto blocks = [&](int m, int n) { return int64_t{(p.m - 1) / m + 1} * ((p.n - 1) / n + 1) * p.batches; };
    if (p.m <= kFew && p.b_row == 1) {
      MultiplyFewKernel<T><<<dim3((p.n - 1) / 8 + 1, 1, batches), 256, 0, s>>>(p, at, bt, dt, ct);
    } else if (p.m <= kFew && p.b_column == 1) {
      MultiplyFewColumnsKernel<T><<<dim3((p.n - 1) / 32 + 1, p.m, batches), 256, 0, s>>>(p, at, bt, dt, ct);
    } else if (blocks(128, 64) >= kEnough) {
      LaunchTiles<T, 128, 64, 8>(s, p, at, bt, dt, ct);
    } else if (blocks(64, 64) >= kEnough) {
      LaunchTiles<T, 64, 64, 8>(s, p, at, bt, dt, ct);
    } else {
      LaunchTiles<T, 32, 32, 4>(s, p, at, bt, dt, ct);
    }
    CheckLaunch();
    return;
  }
#endif
  (void)stream;
  MultiplyOnHost(p, at, bt, dt, ct);
}

}  // namespace

void Multiply(Stream& stream, const Product& p, Type type, const void* a, const void* b, const void* d, void* c) {
  if (p.m == 0 || p.n == 0 || p.batches == 0) return;
  if (type == Type::kHalf) return MultiplyAs<Half>(stream, p, a, b, d, c);
  MultiplyAs<float>(stream, p, a, b, d, c);
}

}  // namespace cosetq::ep
