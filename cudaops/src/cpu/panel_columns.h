// The loop over blocks that the integer kernels have in common. For files of one instruction set each:
// nothing here is shared between them.

#ifndef COSETQ_CPU_PANEL_COLUMNS_H_
#define COSETQ_CPU_PANEL_COLUMNS_H_

#include "kernels.h"

namespace cosetq {
namespace {

// Block describes one block of a panel: kBytes of weights, kRowBytes and kScales of one row of A, and
// Multiply<columns>(panel, a, scales, sums) adds the products of one block with so many rows.
template <typename Block, int kCount>
void MultiplyBlocks(const uint8_t* panel, const uint8_t* a, const float* scales, int64_t count,
                    float* sums) {
  for (int64_t b = 0; b < count; ++b) {
    Block::template Multiply<kCount>(panel, a, scales, sums);
    panel += Block::kBytes;
    a += kCount * Block::kRowBytes;
    scales += kCount * Block::kScales;
  }
}

// A PanelMultiplyFn of blocks for up to kColumns columns.
template <typename Block>
void MultiplyColumns(const uint8_t* panel, const uint8_t* a, const float* scales, int64_t first,
                     int64_t count, int64_t columns, float* sums) {
  static_assert(kColumns == 6);
  a += first * columns * Block::kRowBytes;
  scales += first * columns * Block::kScales;
  switch (columns) {
    case 1:
      return MultiplyBlocks<Block, 1>(panel, a, scales, count, sums);
    case 2:
      return MultiplyBlocks<Block, 2>(panel, a, scales, count, sums);
    case 3:
      return MultiplyBlocks<Block, 3>(panel, a, scales, count, sums);
    case 4:
      return MultiplyBlocks<Block, 4>(panel, a, scales, count, sums);
    case 5:
      return MultiplyBlocks<Block, 5>(panel, a, scales, count, sums);
    default:
      return MultiplyBlocks<Block, 6>(panel, a, scales, count, sums);
  }
}

}  // namespace
}  // namespace cosetq

#endif  // COSETQ_CPU_PANEL_COLUMNS_H_
