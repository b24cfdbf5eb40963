// The functions that exist once per instruction set. Plain C types only, see weight_view.h.

#ifndef COSETQ_CPU_KERNELS_H_
#define COSETQ_CPU_KERNELS_H_

#include <stdint.h>

#include "weight_view.h"

namespace cosetq {

// Activation columns (rows of A) that a product step keeps in registers.
constexpr int kColumns = 6;

// Groups decoded at a time: 12 * 8 columns * 64 rows of float are 24 KB and stay in a first-level
// cache of 32 KB.
constexpr int kDepthGroups = 12;

// Decodes groups [first, first + count) of a tile without the row scales: panel[(g - first) *
// kGroup + j][row].
using DecodeFn = void (*)(const WeightView& w, int64_t tile, int64_t first, int64_t count,
                          float* panel);

// sums[c][row] += sum over k < depth of panel[k][row] * a[k][c], for columns c of 1 to kColumns; a
// has that many to a row.
using MultiplyFn = void (*)(const float* panel, const float* a, int64_t depth, int columns,
                            int rows, float* sums);

using ToFloatFn = void (*)(const uint16_t* from, float* to, int64_t count);
using ToHalfFn = void (*)(const float* from, uint16_t* to, int64_t count);

// Value look-up tables for one column of activations: for every pair of groups [pair, pair + count)
// and every digit position the products of all codewords with the activations there, as 16-bit
// integers times one step per pair. a is the column in packed order (see activations.h), padded
// with zeros to a whole pair.
using LookupBuildFn = void (*)(const WeightView& w, const float* a, int64_t pair, int64_t count,
                               uint8_t* tables, float* steps);

// lanes[64] += the products of pairs [pair, pair + count) of a tile. Rows stand in the order of
// lanes, not of the tile.
using LookupFn = void (*)(const WeightView& w, int64_t tile, int64_t pair, int64_t count,
                          const uint8_t* tables, const float* steps, float* lanes);

// sums[row] of lanes[64].
using LaneRowsFn = void (*)(const float* lanes, float* sums);

// The integer path works on blocks of 8 groups of one tile, decoded to bytes (PanelTables) in steps
// of four columns, four bytes of every row side by side: first the lower four columns of each
// group, then the upper four, then the weights of the rests of groups 0 to 3 and 4 to 7. After the
// last step stands, in 32 bits, -128 times the sum of each row's weights. Rows are in the order of
// lanes, as in the look-up kernels.
inline constexpr int kBlockGroups = 8;
inline constexpr int kBlockSteps = 2 * kBlockGroups + 2;
inline constexpr int64_t kStepBytes = 4 * kTile;
inline constexpr int64_t kBlockBytes = (kBlockSteps + 1) * kStepBytes;

// Activations of one block and row in the same order, as bytes 128 too large. With two parts they
// are the high bytes of 16-bit numbers, followed by the low bytes as they are.
inline constexpr int64_t kPartBytes = 4 * kBlockSteps;

// Blocks decoded at a time: they stay in the first-level cache beside the activations.
inline constexpr int kPanelBlocks = 3;

// Decodes blocks [first, first + count) of a tile.
using PanelDecodeFn = void (*)(const WeightView& w, int64_t tile, int64_t first, int64_t count,
                               int8_t* panel);

// Turns one row of A, of w.cols numbers, into blocks of integers, each with a scale of its own.
// Blocks of this row are columns * parts * kPartBytes apart, scales columns.
using PanelQuantizeFn = void (*)(const WeightView& w, const float* a, int parts, int64_t columns,
                                 uint8_t* out, float* scales);

// sums[c][lane] += scale * product, over count blocks of a panel, for columns c of 1 to kColumns.
using PanelMultiplyFn = void (*)(const int8_t* panel, const uint8_t* a, const float* scales,
                                 int64_t count, int columns, int parts, float* sums);

struct Kernels {
  const char* name;  // of the instruction set
  ToFloatFn to_float;
  ToHalfFn to_half;
  DecodeFn decode;     // any codec
  DecodeFn decode_d4;  // forms other than kGeneral
  MultiplyFn multiply;
  LookupBuildFn lookup_build;  // null for none
  LookupFn lookup;
  LaneRowsFn lane_rows;
  PanelDecodeFn panel_decode;  // null for none
  PanelQuantizeFn panel_quantize;
  PanelMultiplyFn panel_multiply;
};

extern const Kernels kPortableKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif

// Bytes of the tables of one pair of groups.
inline constexpr int64_t kBlockTable = 512;  // 256 low bytes, 256 high bytes
inline constexpr int64_t kNibbleTable = 32;  // 16 low bytes, 16 high bytes
static inline int64_t PairTableBytes(const WeightView& w) {
  return 4 * (kBlockTable + (w.form == Form::kNibbleByte ? kNibbleTable : 0));
}

}  // namespace cosetq

#endif  // COSETQ_CPU_KERNELS_H_
