// Products of matrices of float or double, added in the order that the package quant specifies, so
// that they are the same to the bit on every instruction set: no fused operation, and each sum in one
// lane of one register. Included after generic.h, whose Vec has the width of the registers.

#ifndef COSETQ_CPU_PRODUCT_H_
#define COSETQ_CPU_PRODUCT_H_

#include <string.h>

#include "kernels.h"

namespace cosetq {
namespace {

template <typename T>
struct Packed {
  typedef T Type __attribute__((vector_size(sizeof(Vec))));
};

constexpr int kProductVecs = 2;                           // of columns in a block
constexpr int kProductRows = sizeof(Vec) == 64 ? 12 : 6;  // of a block: its sums fill the registers
constexpr int64_t kStripBytes = 16 << 10;                 // of B that are packed at a time
template <typename T>
constexpr int kWidth = sizeof(Vec) / sizeof(T);  // numbers of a vector

// Adds to a block of C.
template <typename T, int Vecs, int Rows>
inline void AddBlock(const ProductWork<T>& w, const T* a, const T* b, int64_t b_stride, int64_t depth, T* c) {
  using V = typename Packed<T>::Type;
  V sum[Rows][Vecs];
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < Vecs; ++v) memcpy(&sum[r][v], c + r * w.c_stride + v * kWidth<T>, sizeof(V));
  }
  for (int64_t k = 0; k < depth; ++k) {
    V row[Vecs];
#pragma GCC unroll 16
    for (int v = 0; v < Vecs; ++v) memcpy(&row[v], b + k * b_stride + v * kWidth<T>, sizeof(V));
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      const V factor = a[r * w.a_stride + k] - V{};
#pragma GCC unroll 16
      for (int v = 0; v < Vecs; ++v) sum[r][v] = sum[r][v] + factor * row[v];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < Vecs; ++v) memcpy(c + r * w.c_stride + v * kWidth<T>, &sum[r][v], sizeof(V));
  }
}

// Adds to the last `rows` rows of a strip of C.
template <typename T, int Vecs, int Rows>
inline void AddRows(const ProductWork<T>& w, const T* a, const T* b, int64_t b_stride, int64_t depth,
                    T* c, int64_t rows) {
  for (; rows >= Rows; rows -= Rows) {
    AddBlock<T, Vecs, Rows>(w, a, b, b_stride, depth, c);
    a += Rows * w.a_stride;
    c += Rows * w.c_stride;
  }
  if constexpr (Rows > 1) {
    if (rows > 0) AddRows<T, Vecs, Rows - 1>(w, a, b, b_stride, depth, c, rows);
  }
}

// Adds the products of `depth` columns of A to a strip of C of `width` columns.
template <typename T, int Vecs>
void AddStrip(const ProductWork<T>& w, int64_t k, int64_t depth, int64_t column, int64_t width) {
  constexpr int64_t kFull = Vecs * kWidth<T>;
  const T* b = w.b + k * w.b_stride + column;
  if (width == kFull && w.rows <= kProductRows) {  // not worth packing
    AddRows<T, Vecs, kProductRows>(w, w.a + k, b, w.b_stride, depth, w.c + column, w.rows);
    return;
  }
  alignas(64) T packed[kStripBytes / sizeof(T)];
  if (width == kFull) {
    for (int64_t i = 0; i < depth; ++i) memcpy(packed + i * kFull, b + i * w.b_stride, kFull * sizeof(T));
    AddRows<T, Vecs, kProductRows>(w, w.a + k, packed, kFull, depth, w.c + column, w.rows);
    return;
  }
  memset(packed, 0, static_cast<size_t>(depth * kFull) * sizeof(T));
  for (int64_t i = 0; i < depth; ++i) {
    for (int64_t j = 0; j < width; ++j) packed[i * kFull + j] = b[i * w.b_stride + j];
  }
  for (int64_t r = 0; r < w.rows; ++r) {
    T row[kFull] = {};
    T* c = w.c + r * w.c_stride + column;
    for (int64_t j = 0; j < width; ++j) row[j] = c[j];
    AddBlock<T, Vecs, 1>(w, w.a + r * w.a_stride + k, packed, kFull, depth, row);
    for (int64_t j = 0; j < width; ++j) c[j] = row[j];
  }
}

template <typename T>
void AddProduct(const ProductWork<T>& w) {
  constexpr int64_t kFull = kProductVecs * kWidth<T>;
  constexpr int64_t kDepth = kStripBytes / static_cast<int64_t>(kFull * sizeof(T));
  for (int64_t k = 0; k < w.depth; k += kDepth) {
    const int64_t depth = w.depth - k < kDepth ? w.depth - k : kDepth;
    int64_t column = 0;
    for (; column + kFull <= w.columns; column += kFull)
      AddStrip<T, kProductVecs>(w, k, depth, column, kFull);
    for (; column < w.columns; column += kWidth<T>) {
      const int64_t left = w.columns - column;
      AddStrip<T, 1>(w, k, depth, column, left < kWidth<T> ? left : kWidth<T>);
    }
  }
}

}  // namespace
}  // namespace cosetq

#endif  // COSETQ_CPU_PRODUCT_H_
