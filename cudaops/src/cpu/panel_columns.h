// The loops over blocks and columns that the integer kernels have in common. For files of one instruction set each:
// nothing here is shared between them.

#ifndef COSETQ_CPU_PANEL_COLUMNS_H_
#define COSETQ_CPU_PANEL_COLUMNS_H_

#include "kernels.h"

namespace cosetq {
namespace {

// Panels of blocks that know nothing of each other: Block has kBytes of weights, kRowBytes and kScales
// of one row of A, and Multiply<columns>(panel, a, scales, sums) adds the products of one block.
template <typename Block>
struct BlockByBlock {
  static constexpr int64_t kRowBytes = Block::kRowBytes, kScales = Block::kScales;

  template <int kCount>
  static void Multiply(const WeightView&, const uint8_t* panel, const uint8_t* a,
                       const float* scales, int64_t count, float* sums) {
    for (int64_t b = 0; b < count; ++b) {
      Block::template Multiply<kCount>(panel, a, scales, sums);
      panel += Block::kBytes;
      a += kCount * kRowBytes;
      scales += kCount * kScales;
    }
  }
};

// A PanelMultiplyFn for up to kColumns columns: a block of Panel has kRowBytes and kScales of one row of A,
// and Multiply<columns>(w, panel, a, scales, count, sums) adds the products of so many blocks.
template <typename Panel>
void MultiplyColumns(const WeightView& w, const uint8_t* panel, const uint8_t* a,
                     const float* scales, int64_t first, int64_t count, int64_t columns,
                     const Ahead&, float* sums) {
  static_assert(kColumns == 6);
  a += first * columns * Panel::kRowBytes;
  scales += first * columns * Panel::kScales;
  switch (columns) {
    case 1:
      return Panel::template Multiply<1>(w, panel, a, scales, count, sums);
    case 2:
      return Panel::template Multiply<2>(w, panel, a, scales, count, sums);
    case 3:
      return Panel::template Multiply<3>(w, panel, a, scales, count, sums);
    case 4:
      return Panel::template Multiply<4>(w, panel, a, scales, count, sums);
    case 5:
      return Panel::template Multiply<5>(w, panel, a, scales, count, sums);
    default:
      return Panel::template Multiply<6>(w, panel, a, scales, count, sums);
  }
}

}  // namespace
}  // namespace cosetq

#endif  // COSETQ_CPU_PANEL_COLUMNS_H_
