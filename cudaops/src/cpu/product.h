// Products of matrices, added in the order that the package quant specifies, so that they are the
// same to the bit on every instruction set: no fused operation, and each sum in one lane of one
// register. Included after generic.h, which defines kLanes.

#ifndef COSETQ_CPU_PRODUCT_H_
#define COSETQ_CPU_PRODUCT_H_

#include <string.h>

#include "kernels.h"

namespace cosetq {
namespace {

constexpr int kProductVecs = 2;                               // of columns in a block
constexpr int kProductRows = sizeof(Vec) == 64 ? 12 : 6;      // of a block: its sums fill the registers
constexpr int64_t kProductDepth = 256;                        // a strip of B of 16 KB (AVX-512: 32 KB)
constexpr int kProductColumns = kProductVecs * kLanes;

// Adds to a block of C; b is packed, Vecs vectors to a row.
template <int Vecs, int Rows>
inline void AddBlock(const ProductWork& w, const float* a, const float* b, int64_t depth, float* c) {
  Vec sum[Rows][Vecs];
  for (int r = 0; r < Rows; ++r) {
    for (int v = 0; v < Vecs; ++v) memcpy(&sum[r][v], c + r * w.c_stride + v * kLanes, sizeof(Vec));
  }
  for (int64_t k = 0; k < depth; ++k) {
    Vec row[Vecs];
    for (int v = 0; v < Vecs; ++v) memcpy(&row[v], b + (k * Vecs + v) * kLanes, sizeof(Vec));
    for (int r = 0; r < Rows; ++r) {
      const Vec factor = a[r * w.a_stride + k] - Vec{};
      for (int v = 0; v < Vecs; ++v) sum[r][v] = sum[r][v] + factor * row[v];
    }
  }
  for (int r = 0; r < Rows; ++r) {
    for (int v = 0; v < Vecs; ++v) memcpy(c + r * w.c_stride + v * kLanes, &sum[r][v], sizeof(Vec));
  }
}

// Adds to the last `rows` rows of a strip of C.
template <int Vecs, int Rows>
inline void AddRows(const ProductWork& w, const float* a, const float* b, int64_t depth, float* c,
                    int64_t rows) {
  for (; rows >= Rows; rows -= Rows) {
    AddBlock<Vecs, Rows>(w, a, b, depth, c);
    a += Rows * w.a_stride;
    c += Rows * w.c_stride;
  }
  if constexpr (Rows > 1) {
    if (rows > 0) AddRows<Vecs, Rows - 1>(w, a, b, depth, c, rows);
  }
}

// Adds the products of `depth` columns of A to a strip of C of `width` columns.
template <int Vecs>
void AddStrip(const ProductWork& w, int64_t k, int64_t depth, int64_t column, int64_t width) {
  alignas(64) float packed[kProductDepth * Vecs * kLanes];
  constexpr int64_t kWidth = Vecs * kLanes;
  const float* b = w.b + k * w.b_stride + column;
  if (width < kWidth) memset(packed, 0, static_cast<size_t>(depth * kWidth) * sizeof(float));
  for (int64_t i = 0; i < depth; ++i) {
    if (width == kWidth) {
      memcpy(packed + i * kWidth, b + i * w.b_stride, kWidth * sizeof(float));
    } else {
      for (int64_t j = 0; j < width; ++j) packed[i * kWidth + j] = b[i * w.b_stride + j];
    }
  }
  if (width == kWidth) {
    AddRows<Vecs, kProductRows>(w, w.a + k, packed, depth, w.c + column, w.rows);
    return;
  }
  for (int64_t r = 0; r < w.rows; ++r) {
    float row[kWidth] = {};
    float* c = w.c + r * w.c_stride + column;
    for (int64_t j = 0; j < width; ++j) row[j] = c[j];
    AddBlock<Vecs, 1>(w, w.a + r * w.a_stride + k, packed, depth, row);
    for (int64_t j = 0; j < width; ++j) c[j] = row[j];
  }
}

void AddProduct(const ProductWork& w) {
  for (int64_t k = 0; k < w.depth; k += kProductDepth) {
    const int64_t depth = w.depth - k < kProductDepth ? w.depth - k : kProductDepth;
    int64_t column = 0;
    for (; column + kProductColumns <= w.columns; column += kProductColumns)
      AddStrip<kProductVecs>(w, k, depth, column, kProductColumns);
    for (; column < w.columns; column += kLanes) {
      const int64_t left = w.columns - column;
      AddStrip<1>(w, k, depth, column, left < kLanes ? left : kLanes);
    }
  }
}

}  // namespace
}  // namespace cosetq

#endif  // COSETQ_CPU_PRODUCT_H_
