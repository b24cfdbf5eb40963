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

constexpr int kTile = 64, kDepth = 16;

// A block makes a tile of 64 x 64, a thread 4 x 4 of it. The fast index of a load follows whichever
// stride of the matrix is 1.
template <typename T>
__global__ void __launch_bounds__(256) MultiplyKernel(Product p, const T* a, const T* b, const T* d, T* c) {
  __shared__ float as[kDepth][kTile + 4], bs[kDepth][kTile + 4];
  int at[2];
  p.batch.At(static_cast<int>(blockIdx.z), at);
  a += at[0];
  b += at[1];
  const int row0 = static_cast<int>(blockIdx.y) * kTile, column0 = static_cast<int>(blockIdx.x) * kTile;
  const int thread = static_cast<int>(threadIdx.x), ty = thread / 16, tx = thread % 16;
  const bool a_by_k = p.a_column == 1, b_by_k = p.b_column != 1;
  float sum[4][4] = {};
  for (int k0 = 0; k0 < p.k; k0 += kDepth) {
    for (int i = thread; i < kTile * kDepth; i += 256) {
      const int ar = a_by_k ? i / kDepth : i % kTile, ak = a_by_k ? i % kDepth : i / kTile;
      const bool a_in = row0 + ar < p.m && k0 + ak < p.k;
      as[ak][ar] = a_in ? ToFloat(a[(row0 + ar) * p.a_row + (k0 + ak) * p.a_column]) : 0.0f;
      const int bc = b_by_k ? i / kDepth : i % kTile, bk = b_by_k ? i % kDepth : i / kTile;
      const bool b_in = column0 + bc < p.n && k0 + bk < p.k;
      bs[bk][bc] = b_in ? ToFloat(b[(k0 + bk) * p.b_row + (column0 + bc) * p.b_column]) : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
      const float4 x = *reinterpret_cast<const float4*>(&as[k][ty * 4]);
      const float4 y = *reinterpret_cast<const float4*>(&bs[k][tx * 4]);
      const float xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] += xs[i] * ys[j];
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int row = row0 + ty * 4 + i, column = column0 + tx * 4 + j;
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

#endif

template <typename T>
void MultiplyAs(Stream& stream, const Product& p, const void* a, const void* b, const void* d, void* c) {
  const T *at = static_cast<const T*>(a), *bt = static_cast<const T*>(b), *dt = static_cast<const T*>(d);
  T* ct = static_cast<T*>(c);
#ifdef __CUDACC__
  if (!stream.on_host()) {
    const auto s = static_cast<cudaStream_t>(stream.handle());
    constexpr int kMaxGridZ = 65535;
    if (p.batches > kMaxGridZ || (p.m - 1) / kTile >= kMaxGridZ)
      throw DeviceError("a product of matrices with more than 65535 batches or 4 million rows");
    const auto batches = static_cast<unsigned>(p.batches);
    if (p.m <= 4 && p.b_row == 1) {
      MultiplyFewKernel<T><<<dim3((p.n - 1) / 8 + 1, 1, batches), 256, 0, s>>>(p, at, bt, dt, ct);
    } else {
      MultiplyKernel<T><<<dim3((p.n - 1) / kTile + 1, (p.m - 1) / kTile + 1, batches), 256, 0, s>>>(p, at, bt, dt, ct);
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
