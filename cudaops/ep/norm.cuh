// The kernels of LayerNorm and of what divides by the root of the mean square, alone or of a sum.

#ifndef COSETQ_EP_NORM_CUH_
#define COSETQ_EP_NORM_CUH_

#include <algorithm>

#include "launch.h"

namespace cosetq::ep {

// Of x + skip + bias, each of which but x may be null. The sum is kept where sum is not null. Rows of up to kHeld elements for each thread are
// read once.
template <typename T>
struct NormKernel {
  static constexpr int kHeld = 16;
  const T *x, *skip, *bias, *scale, *shift;
  T *y, *sum;
  int n, skip_rows;  // those of skip come again and again
  float epsilon;
  bool centre;  // LayerNorm; otherwise by the root of the mean square alone

  COSETQ_HD float At(const T* row, const T* skip_row, int k) const {
    float value = ToFloat(row[k]);
    if (skip != nullptr) value += ToFloat(skip_row[k]);
    if (bias != nullptr) value += ToFloat(bias[k]);
    return value;
  }
  COSETQ_HD void Write(int64_t first, int k, float value, float mean, float inverse) const {
    float out = (value - mean) * inverse;
    if (scale != nullptr) out *= ToFloat(scale[k]);
    if (shift != nullptr) out += ToFloat(shift[k]);
    if (sum != nullptr) sum[first + k] = FromFloat<T>(value);
    y[first + k] = FromFloat<T>(out);
  }
  COSETQ_HD const T* SkipRow(int index) const { return skip == nullptr ? nullptr : skip + static_cast<int64_t>(index % skip_rows) * n; }
  COSETQ_HD float Mean(const Block& block, float own) const { return block.Reduce(own, 0, Plus()) / static_cast<float>(n); }

  COSETQ_HD void Short(const Block& block, int64_t first, const T* row, const T* skip_row) const {
    float held[kHeld], mean = 0, square = 0;
COSETQ_UNROLL
    for (int i = 0; i < kHeld; ++i) {
      const int k = block.thread() + i * block.threads();
      held[i] = k < n ? At(row, skip_row, k) : 0;
    }
    if (centre) {
COSETQ_UNROLL
      for (int i = 0; i < kHeld; ++i) mean += held[i];
      mean = Mean(block, mean);
    }
COSETQ_UNROLL
    for (int i = 0; i < kHeld; ++i) {
      const float d = block.thread() + i * block.threads() < n ? held[i] - mean : 0;
      square += d * d;
    }
    const float inverse = 1 / sqrtf(Mean(block, square) + epsilon);
COSETQ_UNROLL
    for (int i = 0; i < kHeld; ++i) {
      const int k = block.thread() + i * block.threads();
      if (k < n) Write(first, k, held[i], mean, inverse);
    }
  }

  COSETQ_HD void Long(const Block& block, int64_t first, const T* row, const T* skip_row) const {
    float mean = 0, square = 0;
    if (centre) {
      for (int k = block.thread(); k < n; k += block.threads()) mean += At(row, skip_row, k);
      mean = Mean(block, mean);
    }
    for (int k = block.thread(); k < n; k += block.threads()) {
      const float d = At(row, skip_row, k) - mean;
      square += d * d;
    }
    const float inverse = 1 / sqrtf(Mean(block, square) + epsilon);
    for (int k = block.thread(); k < n; k += block.threads()) Write(first, k, At(row, skip_row, k), mean, inverse);
  }

  COSETQ_HD void operator()(const Block& block, int index) const {
    const int64_t first = static_cast<int64_t>(index) * n;
    const T* skip_row = SkipRow(index);
    if (n <= kHeld * block.threads()) {
      Short(block, first, x + first, skip_row);
    } else {
      Long(block, first, x + first, skip_row);
    }
  }
};

#ifdef __CUDACC__

// The same by pieces of 16 bytes, kHeld for each thread, all of which are loaded before anything waits: what all lies at multiples of that.
template <typename T, int kHeld>
__global__ void __launch_bounds__(kMostThreads) NormPieces(const __grid_constant__ NormKernel<T> f) {
  constexpr int kPiece = 16 / sizeof(T);
  struct alignas(16) Piece {
    T of[kPiece];
  };
  Begin();
  const Block block;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * f.n;
  const auto at = [&](int i) { return (block.thread() + i * block.threads()) * kPiece; };
  const auto load = [&](const T* from, Piece (&to)[kHeld]) {
    if (from == nullptr) return;
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      if (at(i) < f.n) to[i] = *reinterpret_cast<const Piece*>(from + at(i));
    }
  };
  Piece x[kHeld] = {}, skip[kHeld] = {}, bias[kHeld] = {}, scale[kHeld], shift[kHeld];
  load(f.x + first, x);
  load(f.SkipRow(static_cast<int>(blockIdx.x)), skip);
  load(f.bias, bias);
  load(f.scale, scale);
  load(f.shift, shift);
  float held[kHeld][kPiece], mean = 0, square = 0;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
#pragma unroll
    for (int e = 0; e < kPiece; ++e) mean += held[i][e] = ToFloat(x[i].of[e]) + ToFloat(skip[i].of[e]) + ToFloat(bias[i].of[e]);
  }
  mean = f.centre ? f.Mean(block, mean) : 0;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
#pragma unroll
    for (int e = 0; e < kPiece; ++e) {
      const float d = at(i) < f.n ? held[i][e] - mean : 0;
      square += d * d;
    }
  }
  const float inverse = 1 / sqrtf(f.Mean(block, square) + f.epsilon);
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    if (at(i) >= f.n) break;
    Piece y, sum;
#pragma unroll
    for (int e = 0; e < kPiece; ++e) {
      float out = (held[i][e] - mean) * inverse;
      if (f.scale != nullptr) out *= ToFloat(scale[i].of[e]);
      if (f.shift != nullptr) out += ToFloat(shift[i].of[e]);
      y.of[e] = FromFloat<T>(out);
      sum.of[e] = FromFloat<T>(held[i][e]);
    }
    if (f.sum != nullptr) *reinterpret_cast<Piece*>(f.sum + first + at(i)) = sum;
    *reinterpret_cast<Piece*>(f.y + first + at(i)) = y;
  }
}

#endif

// Of so many rows.
template <typename T>
void Normalize(Stream& stream, int64_t rows, const NormKernel<T>& f) {
#ifdef __CUDACC__
  constexpr int kPiece = 16 / sizeof(T), kFew = 32;  // rows, a block of which has a processor for itself
  const auto lies = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
  const bool whole = f.n % kPiece == 0 && lies(f.x) && lies(f.skip) && lies(f.bias) && lies(f.scale) && lies(f.shift) && lies(f.y) && lies(f.sum);
  const int pieces = f.n / kPiece, held = rows <= kFew && pieces <= kMostThreads ? 1 : 2, threads = ((pieces - 1) / held / 32 + 1) * 32;
  if (!stream.on_host() && whole && threads <= kMostThreads) {
    Launch(stream, held == 1 ? NormPieces<T, 1> : NormPieces<T, 2>, CheckedCount(rows), static_cast<unsigned>(threads), 0, f);
    return;
  }
#endif
  ForEachBlock(stream, rows, f.n, f);
}

}  // namespace cosetq::ep

#endif  // COSETQ_EP_NORM_CUH_
