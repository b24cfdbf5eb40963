// The functions that exist once per instruction set. Plain C types only, see weight_view.h.

#ifndef COSETQ_CPU_KERNELS_H_
#define COSETQ_CPU_KERNELS_H_

#include <stdint.h>

#include "weight_view.h"

namespace cosetq {

// Activation columns (rows of A) that a product step keeps in registers, unless a kernel says
// otherwise.
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

// Work for AddProductFn: C [rows, columns] += A [rows, depth] * B [depth, columns], a stride being
// the distance of two rows in numbers. Every entry of C takes its products in the order of depth,
// each rounded before it is added.
template <typename T>
struct ProductWork {
  T* c;
  int64_t c_stride;
  const T* a;
  int64_t a_stride;
  const T* b;
  int64_t b_stride;
  int64_t rows;
  int64_t depth;
  int64_t columns;
};

template <typename T>
using AddProductFn = void (*)(const ProductWork<T>& work);

// Second moments are summed up in square blocks of so many columns.
inline constexpr int64_t kMomentUnit = 96;

// Some columns of rows [rows, stride], up to kMomentUnit.
struct MomentRows {
  const float* from;
  int64_t stride;
  int64_t rows;
  int64_t columns;
};

// Of each column the extremes, and Σ w v and Σ w v² in the order of the rows.
struct MomentSums {
  const double* weights;  // one per row
  float* low;
  float* high;
  double* sums;
  double* squares;  // null: not wanted
};

// Rows laid out for products, each times the root of what it weighs: as strips of as many columns as a kernel keeps in vectors, and
// as slips of as many as it spreads over vectors, [strip or slip][depth][column], zeros past the last column.
struct MomentPanels {
  const float* roots;  // one per row
  int64_t depth;       // rows that there is room for
  float* strips;       // [kMomentUnit * depth]
  float* slips;        // likewise
  int64_t first;       // place of the first row
};

// to[i][j] += sum over rows of slips[i] * strips[j], in the order of the rows and for some hundred of them in float, for the columns
// of two units.
struct MomentBlock {
  double* to;  // [kMomentUnit, kMomentUnit]
  const float* strips;
  const float* slips;
  int64_t rows;
  int64_t depth;
  int64_t strip_columns;
  int64_t slip_columns;
  bool diagonal;  // the units are the same: what lies below the diagonal is of no interest
};

struct MomentKernels {
  bool (*copy)(const float* from, int64_t count, float* to);  // returns whether all are finite
  double (*sum_squares)(const float* values, int64_t count);  // the same on every instruction set
  void (*summarise)(const MomentRows& rows, const MomentSums& to);
  void (*pack)(const MomentRows& rows, const MomentPanels& to);
  void (*add)(const MomentBlock& work);
};

// What the sums of the rows of W of a tile are multiplied with, and what is added then.
struct RowScales {
  const float* scales;  // [count]
  const float* bias;    // [count], or null
  int64_t count;
};

// y[c * stride + row] = the sum of a row of W in lanes[c][kTile], scaled, for some rows of A. Where the sum of a row stands is
// the affair of the kernel that made them.
using StoreRowsFn = void (*)(const float* lanes, int64_t columns, const RowScales& rows, float* y,
                             int64_t stride);

using ToFloatFn = void (*)(const uint16_t* from, float* to, int64_t count);
using ToHalfFn = void (*)(const float* from, uint16_t* to, int64_t count);

// Value look-up tables for one column of activations: for every digit position the products of all
// codewords with the activations there, as integers of one or two bytes (parts). LookupGroups groups
// make a unit, whose products share one step, the value of the integer 1. a is the column in packed
// order (see activations.h) from the first of the units on, padded with zeros.
using LookupBuildFn = void (*)(const WeightView& w, const float* a, int64_t count, uint8_t* tables,
                               float* steps);

// lanes[64] += the products of units [unit, unit + count) of a tile. Rows stand in the order of
// lanes, not of the tile. The codes that are read after these are at `next`; they may be fetched meanwhile.
using LookupFn = void (*)(const WeightView& w, int64_t tile, int64_t unit, int64_t count,
                          const uint8_t* tables, const float* steps, const uint8_t* next,
                          float* lanes);

struct LookupKernels {
  LookupBuildFn build;  // null for none
  LookupFn lookup;
  StoreRowsFn store;
  int64_t most;  // rows of A, times parts up to kLookupRows: more are faster decoded
};

inline constexpr int64_t kLookupRows = 2;

// The integer path works on blocks of 8 groups of one tile, decoded once and multiplied with blocks
// of integer activations, each with a scale of its own. How weights and activations stand in a block
// is the kernel's affair.
inline constexpr int kBlockGroups = 8;

using PanelUsableFn = bool (*)(const FormTables& tables);

// Decodes blocks [first, first + count) of a tile.
using PanelDecodeFn = void (*)(const WeightView& w, int64_t tile, int64_t first, int64_t count,
                               uint8_t* panel);

// Turns one row of A, of w.cols numbers, into blocks of integers: the row `column` of the `columns` that
// share `out`, of which each block has row_bytes, and `scales`.
using PanelQuantizeFn = void (*)(const WeightView& w, const float* a, int64_t column,
                                 int64_t columns, uint8_t* out, float* scales);

// Memory that is read next, in lines of the caches: it is fetched while something else is computed.
struct Ahead {
  const uint8_t* at;
  int64_t lines;
};
inline constexpr int64_t kLineBytes = 64;

// sums[c][lane] += scale * product for columns c, with a panel of blocks [first, first + count). a and
// scales are as `quantize` wrote them.
using PanelMultiplyFn = void (*)(const WeightView& w, const uint8_t* panel, const uint8_t* a,
                                 const float* scales, int64_t first, int64_t count,
                                 int64_t columns, const Ahead& ahead, float* sums);

// The same for a whole tile and few rows of A, which share `a`; weights are decoded on the way.
using PanelTileFn = void (*)(const WeightView& w, int64_t tile, const uint8_t* a,
                             const float* scales, int64_t columns, float* sums);

// Ends a thread's work with `multiply`, which may keep registers set up.
using PanelFinishFn = void (*)();

struct PanelKernels {
  PanelUsableFn usable;
  PanelDecodeFn decode;
  PanelQuantizeFn quantize;
  PanelMultiplyFn multiply;
  PanelTileFn multiply_tile;  // null for none
  int64_t (*tile_columns)(const WeightView& w);  // most rows of A for it
  PanelFinishFn finish;  // null for nothing
  StoreRowsFn store;
  int64_t row_bytes;  // of a block of activations of one row of A
  int64_t scales;     // of a block of activations of one row of A
  int64_t columns;    // rows of A that are multiplied together, at most
  int64_t together;   // rows of A take room for a multiple of this
  int64_t blocks;     // decoded at a time: they stay near beside the activations
  int64_t few_blocks;  // the same with few rows of A
};

// The most that a kernel decodes at a time.
inline constexpr int64_t kPanelBytes = 40 << 10;

struct Kernels {
  const char* name;      // of the instruction set
  bool fast_by_default;  // activations of 16 bits would make layers slower than in float
  ToFloatFn to_float;
  ToHalfFn to_half;
  DecodeFn decode;     // any codec
  DecodeFn decode_d4;  // forms other than kGeneral
  MultiplyFn multiply;
  StoreRowsFn store;  // of sums in the order of the rows
  AddProductFn<float> add_product;
  AddProductFn<double> add_product_double;
  MomentKernels moments;
  // For activations in one byte and in two.
  LookupKernels lookup[2];
  const PanelKernels* panel[2];  // null for none; the first gives way to the second
};

extern const Kernels kPortableKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvxVnniKernels;
extern const Kernels kAvx512Kernels;
extern const Kernels kAmxKernels;
#endif

// Groups of a unit and bytes of its tables: for every block of the unit one of 256 entries, then,
// where fine digits have four bits, one of 16. The low bytes of a table stand before the high ones.
static inline int64_t LookupGroups(int parts) { return parts == 2 ? 2 : 4; }
inline constexpr int64_t kBlockTable = 512;  // with two parts
inline constexpr int64_t kNibbleTable = 32;
static inline int64_t LookupTableBytes(const WeightView& w, int parts) {
  const int64_t block = w.form == Form::kNibbleByte ? kBlockTable + kNibbleTable : kBlockTable;
  return 2 * LookupGroups(parts) * block * parts / 2;
}

}  // namespace cosetq

#endif  // COSETQ_CPU_KERNELS_H_
