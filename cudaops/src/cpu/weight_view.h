// A coded weight as the kernels see it: plain pointers, no ownership, no standard library.
//
// Files compiled for one instruction set include only this header, kernels.h and C headers. An
// inline function of the standard library compiled there could be the copy that the linker keeps
// for everyone, and would then crash on processors without that instruction set.

#ifndef COSETQ_CPU_WEIGHT_VIEW_H_
#define COSETQ_CPU_WEIGHT_VIEW_H_

#include <math.h>
#include <stdint.h>

#include "cosetq/schema.h"

namespace cosetq {

constexpr int kTile =
    schema::kMaxTile;  // rows of a tile, and the stride of every buffer indexed by row
constexpr int kGroup = schema::kGroup;  // columns of a group

// Where one digit stands and which codebook row it names: codes[element] / divisor % modulus +
// base.
struct Slot {
  int32_t element;
  int32_t divisor;
  int32_t modulus;
  int32_t base;
};

// Codecs with kernels of their own: blocks of four columns, whole-byte digits, integer level
// weights; or single columns of four bits.
enum class Form {
  kGeneral,
  kOneByte,     // one level, a byte per digit
  kTwoByte,     // two levels, a byte per digit
  kNibbleByte,  // two levels, fine digits of four bits
  kNibbles,     // blocks of one column, one level, digits of four bits
  kTwoBits,     // the same of two bits, which the GPU's kernels alone tell from kGeneral
};

// Elements of one group of one row.
constexpr int FormElements(Form form) {
  return form == Form::kOneByte      ? 2
         : form == Form::kTwoByte    ? 4
         : form == Form::kNibbleByte ? 3
         : form == Form::kNibbles    ? 4
                                     : 0;
}

// Two coordinates in one byte, the second above the first: how far, and the mask of one.
constexpr int kPanelPlace = 3;
constexpr int kPanelField = (1 << kPanelPlace) - 1;

// What makes centred bytes numbers without a sign.
constexpr int kPanelCentre = 128;

// The largest gain of blocks of four columns.
constexpr int kPanelGain = 15;

// How a weight becomes bytes. With a unit that divides level_weights[0] and v a group's sum, over
// the levels, of coordinates less the least there is, in units, a weight is
//
//   unit * gain * (v - shift)        shift = centre / unit - the least coordinates
//
// Centred bytes hold gain * (v - b), where b is the nearest integer to the shift, with kPanelCentre added where
// they have no sign; the rest, gain * r
// with r = shift - b, is left to the activations: each group has one more column with activation
// -<r, a> / kappa and weight gain * kappa, where kappa >= |r| summed makes the activation no larger
// than the others. Bytes without a sign hold gain * v; the shift is left to two columns, with
// weights gain * coarse and gain.
struct PanelTables {
  bool usable;
  // Two coordinates in units of the level, times the weight of the level in units, 2^shift:
  // coordinate 2 * p below 2 * p + 1. [level][p][digit]
  alignas(64) uint8_t pairs[2][2][256];
  // In place of them, with blocks of one column: v, and whole weights, [centred][gain * 16 + digit].
  alignas(16) uint8_t nibbles[16];
  alignas(64) uint8_t weights[2][256];
  uint8_t shift[2];
  uint8_t bias[4];  // b
  alignas(16) uint8_t shifts[4][kPanelGain + 1];  // gain * b - kPanelCentre
  uint8_t kappa, coarse;
  float rest[kGroup];   // -r / kappa
  bool has_rests;       // any of them is not zero
  float whole[kGroup];  // -shift
  float unit;           // times the gain where there is only one
};

// How a weight becomes bytes before its gain, where look-ups of bytes are dear: whole codewords,
// four bytes in a word. With v a group's sum of digits in units of level_weights[0],
//
//   weight = unit * gain * (v' - shift)        v' = sum of the levels' bytes >= 0
//
// and neither v' times an activation of 7 bits, twice, nor their sum over four columns less the
// shift exceeds 15 bits. For activations of 16 bits v' is refined by 2^fold:
//
//   weight = unit / 2^fold * gain * ((v' * 2^fold - c) - r)        c an integer, |r| <= 1/2
//
// with the rests left to the activations as in PanelTables.
struct WordTables {
  bool usable;
  uint32_t codewords[2][256];  // [level][digit]
  float shift[4];
  float unit;  // times the gain where there is only one
  int fold;
  int16_t c[4];
  int kappa;
  float rest[kGroup];  // -r / kappa
};

// Whether a gain is one that kernels with integers take.
inline bool IsIntegerGain(float gain) { return gain >= 0 && gain <= 16 && gain == floorf(gain); }

// Tables of a weight whose form is not kGeneral. Level 0 is the finest; a table of four-bit digits
// uses 16 entries. Blocks of one column count as four equal coordinates.
struct FormTables {
  // Codebook coordinates as integers in units of level_weights[0], [level][coordinate][digit].
  alignas(64) int8_t digits[2][4][256];
  // Codewords in float with the level's weight, [level][digit].
  alignas(64) float weighted[2][256][4];
  // Codebook coordinates less the level's share of the centre, in units of the level's own weight.
  alignas(64) float centred[2][4][256];
  // Of the table of 256 entries as integers, and what centring takes from each: coordinates 2 * p
  // and 2 * p + 1 side by side, [p][place]. Place 16 * i + 4 * l + k of 64 holds digit 16 * l + 4 *
  // i + k, so that sums packed to bytes come out in order.
  alignas(64) int16_t integers[2][256][2];
  float shares[4];
  // Norm of the longest centred codeword of all levels, and the largest size of each coordinate.
  float longest;
  float largest[4];
  // Both levels use the same centred table.
  bool shared;
  // level_weights[1] / level_weights[0] as a power of two.
  int ratio_log2;
  // The gains as bytes, repeated to 64 entries; valid when integer_gains.
  alignas(64) uint8_t gain_bytes[64];
  bool integer_gains;  // IsIntegerGain, all of them
  PanelTables panel;
  WordTables words;
};

struct WeightView {
  int64_t rows;
  int64_t cols;
  int64_t groups;    // ceil(cols / kGroup)
  int64_t tiles;     // ceil(rows / tile)
  int32_t tile;      // rows per tile
  int32_t elements;  // of one group of one row
  int32_t code_bytes;
  int32_t dim;  // of the lattice
  int32_t levels;
  int32_t slot_count;
  const void* codes;     // [tiles, groups, elements, tile]
  const int32_t* words;  // codebook, a codeword in one word (dim <= 4) or two, low byte first
  const Slot* slots;
  const float* level_weights;
  float centre[kGroup];
  const uint8_t* gains;  // [tiles, ceil(groups / gains_per_byte), tile]; null with a single gain
  int32_t gains_per_byte;
  int32_t gain_bits;
  float gain_values[schema::kMaxGains];
  const float* row_scales;  // [tiles * tile], zero past the last row
  const float* bias;        // [tiles * tile]; null for none
  Form form;
  const FormTables* tables;  // null when form is kGeneral
};

// The column of a group that integer kernels have in place j: elements of two columns give the even
// ones first.
static inline int PlaceColumn(const WeightView& w, int j) {
  return w.form == Form::kNibbles ? 2 * j % kGroup + j / 4 : j;
}

}  // namespace cosetq

#endif  // COSETQ_CPU_WEIGHT_VIEW_H_
