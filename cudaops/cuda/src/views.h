// A weight on the device as kernels see it: plain pointers, passed by value.
//
// Forms with byte digits of D4 are *packed* for the tensor cores. A panel is 16 rows by 256 columns, that is 32 groups
// of 8, and holds what the lanes of one warp need, lane by lane, for eight products of m16n8k32. In step s lane
// 4g + t has group 8t + s of the rows g and g + 8: its registers a0 and a2 are the two blocks of row g, a1
// and a3 those of row g + 8, a byte per weight. The columns of the product are therefore a permutation of those of
// the matrix, which the activations follow: a lane's groups lie next to each other there, 16 bytes of float16 of a coordinate.

#ifndef COSETQ_CUDA_VIEWS_H_
#define COSETQ_CUDA_VIEWS_H_

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "cpu/weight_view.h"
#include "divisor.h"

namespace cosetq::cuda {

constexpr int kPanelRows = 16;
constexpr int kPanelGroups = 32;
constexpr int kPanelSteps = 8;
constexpr int kStepGroups = kPanelGroups / kPanelSteps;

// Whether blocks are single columns, and the bits of their digits.
constexpr int ColumnBits(Form form) { return form == Form::kTwoBits ? 2 : 4; }
// Calls use(form) with the form as a constant.
template <typename Use>
auto ForForm(Form form, const Use& use) {
  switch (form) {
    case Form::kOneByte:
      return use(std::integral_constant<Form, Form::kOneByte>());
    case Form::kTwoByte:
      return use(std::integral_constant<Form, Form::kTwoByte>());
    case Form::kNibbles:
      return use(std::integral_constant<Form, Form::kNibbles>());
    case Form::kTwoBits:
      return use(std::integral_constant<Form, Form::kTwoBits>());
    default:
      return use(std::integral_constant<Form, Form::kNibbleByte>());
  }
}

constexpr bool IsColumns(Form form) { return form == Form::kNibbles || form == Form::kTwoBits; }

// The group of a chunk that lanes 4g + t have in a step: of single columns pairs of each eight, as float16 products want them.
__host__ __device__ constexpr int GroupOf(Form form, int step, int t) {
  return IsColumns(form) ? step / 2 * 8 + t * 2 + step % 2 : t * kPanelSteps + step;
}

// The step in which lanes 4g + t have a group of a chunk.
struct GroupPlace {
  int step, t;

  __host__ __device__ constexpr GroupPlace(Form form, int group)
      : step(IsColumns(form) ? group / 8 * 2 + group % 2 : group % kPanelSteps), t(IsColumns(form) ? group / 2 % 4 : group / kPanelSteps) {}
};

// 16-byte vectors of codes that a lane has in a panel, [vector][lane]. One level: the digits of four steps, a word each.
// Two levels: fine and coarse digits of a step, then of the next. Four-bit fine digits: eight words of
// coarse digits, then the fine digits of two steps in every word. Single columns: column_halves.cuh.
constexpr int PanelVectors(Form form) {
  return form == Form::kOneByte || form == Form::kTwoBits ? 2 : form == Form::kNibbleByte ? 3 : 4;
}

// The gains of a panel follow its codes, a word per lane, 2 bits each: step s of row g in bits 4s, of row g + 8 in bits
// 4s + 2. They are there, and 0, also when there is one gain.
constexpr int PanelBytes(Form form) { return PanelVectors(form) * 512 + 128; }

constexpr int FineDigits(Form form) { return form == Form::kNibbleByte ? 16 : 256; }

// Of the weights of two levels that share a table.
constexpr int kLevelRatio = 4;

// Weights as unsigned bytes u = gain * (v - rounded centre) + bias, a coordinate each, four in a word:
//
//   (fine word + coarse word) * gain + base, modulo 2^32,
//
// where with one table for both levels the coarse word is the fine one times four. Fields of the words may be negative and borrow
// from their neighbours; of the result they are not. What is missing of the centre is multiplied by the gain alone.
struct ByteView {
  const uint32_t* fine;    // [FineDigits], less the rounded centre
  const uint32_t* coarse;  // [256]; null if fine is the table of both levels
  uint32_t gains;          // four bytes: gains times factor, and all words are divided by it
  uint32_t base;           // the biases, a byte each
  uint32_t centres;        // of single columns, whose words are doubled digits: what these lack, minus the doubled centre
  int32_t bits;            // gain * (v - centre) is less than 2^bits
  float rest[kGroup];      // centre less rounded centre, over factor: less than 1 in sum
};

// Codewords as they are, in units of level_weights[0], 4 bytes each, biased to be non-negative: fine [FineDigits], and coarse [256]
// if there are two levels of their own; with one table for both, coarse is null and the coarse word is four times the fine one.
// Of single columns panels hold codewords, less the least, and there are gains and the centre less the least codeword alone.
struct PointView {
  const uint32_t* fine;
  const uint32_t* coarse;
  int32_t bias;          // of the sum of the levels
  int32_t fine_bias;     // of the fine level
  int32_t largest;       // magnitude of a coordinate of a level
  uint32_t gains;        // four bytes; 0x01010101 when there is one gain
  float centre[kGroup];
};

// What every kernel reads comes first, and lies together: each line of parameters is waited for when it is first used.
struct PackedView {
  Form form;
  int32_t rows, cols, groups;
  int32_t tiles;   // of kPanelRows
  int32_t chunks;  // of kPanelGroups
  int32_t shares;  // of the tiles: what a block of the small-batch kernel takes
  Divisor by_shares;
  const unsigned char* panels;  // [share][chunk][tile of the share]
  const float* scales;          // [tiles * kPanelRows], times the unit
  const float* offsets;         // bias of the node, [rows]; null for none
  ByteView bytes;               // of blocks of four columns
  PointView points;
  Divisor by_tiles;
};

// Where part i of a whole begins when it is cut as evenly as may be; whole times parts must stay below 2^31.
__host__ __device__ inline int Part(int whole, int i, int parts) {
  return static_cast<int>(static_cast<uint32_t>(whole * i) / static_cast<uint32_t>(parts));
}

// The tiles of a share: first ... first + count - 1.
struct Share {
  int first, count;

  __host__ __device__ Share(const PackedView& w, int share)
      : first(w.by_shares.Of(w.tiles * share)), count(w.by_shares.Of(w.tiles * (share + 1)) - first) {}
};

// The share that holds a tile.
__host__ __device__ inline int ShareOf(const PackedView& w, int tile) {
  return w.by_tiles.Of((tile + 1) * w.shares - 1);
}

// The panels of a tile lie a stride apart, chunk after chunk.
struct TilePanels {
  const unsigned char* first;
  int32_t stride;  // in bytes

  __host__ __device__ TilePanels(const PackedView& w, int tile) {
    const Share share(w, ShareOf(w, tile));
    first = w.panels + static_cast<int64_t>(share.first * w.chunks + tile - share.first) * PanelBytes(w.form);
    stride = share.count * PanelBytes(w.form);
  }
  __host__ __device__ const unsigned char* operator[](int chunk) const { return first + static_cast<int64_t>(chunk) * stride; }
};

// The rotation of the activations that a weight was coded under, see docs/format.md.
struct Turn {
  int32_t block;         // B
  const float* factors;  // s_k / sqrt(B) of every column; null for no rotation
};

// Any form, as docs/format.md has it.
struct GeneralView {
  int64_t rows, cols, groups;
  int32_t tile, elements, code_bytes, dim, levels;
  const void* codes;
  const int32_t* words;  // codebook, a codeword in one word (dim <= 4) or two
  const Slot* slots;
  const float* level_weights;
  const uint8_t* gains;  // null with a single gain
  int32_t gains_per_byte, gain_bits;
  float centre[kGroup];
  float gain_values[schema::kMaxGains];
  const float* scales;   // [rows]
  const float* offsets;  // [rows] or null
};

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_VIEWS_H_
