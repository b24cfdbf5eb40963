// Kernels for any processor and any codec, written so that the compiler vectorises them for the
// instruction set that the including file is built for. Everything has internal linkage, see
// weight_view.h.
//
// Before including, a file defines Vec, a GCC vector of floats, and MulAdd(Vec, Vec, Vec).

#ifndef COSETQ_CPU_GENERIC_H_
#define COSETQ_CPU_GENERIC_H_

#include <string.h>

#include "half.h"
#include "kernels.h"
#include "store_rows.h"

namespace cosetq {
namespace {

// Codebook row of each digit of a slot. Divisions run in float, which is exact here (numbers below
// 2^17) and vectorises.
template <typename Code>
inline void ReadDigits(const Code* codes, const Slot& slot, int rows, int32_t* entry) {
  const float divisor = static_cast<float>(slot.divisor),
              modulus = static_cast<float>(slot.modulus);
  for (int r = 0; r < rows; ++r) entry[r] = codes[r];
  if (slot.divisor > 1) {
    for (int r = 0; r < rows; ++r)
      entry[r] = static_cast<int32_t>(static_cast<float>(entry[r]) / divisor);
  }
  constexpr int32_t kRange = 1 << (8 * sizeof(Code));
  if (slot.modulus <= (kRange - 1) / slot.divisor) {
    for (int r = 0; r < rows; ++r) {
      const int32_t quotient = static_cast<int32_t>(static_cast<float>(entry[r]) / modulus);
      entry[r] -= quotient * slot.modulus;
    }
  }
  for (int r = 0; r < rows; ++r) entry[r] += slot.base;
}

// values[j][row] += weight * coordinate j, for coordinates j < count of a word of the codebook.
inline void AddWords(const int32_t* words, const int32_t* entry, int stride, int rows, int count,
                     float weight, float* values) {
  int32_t word[kTile];
  for (int r = 0; r < rows; ++r) word[r] = words[entry[r] * stride];
  for (int j = 0; j < count; ++j) {
    const int shift = 24 - 8 * j;
    for (int r = 0; r < rows; ++r) {
      const int32_t coordinate =
          static_cast<int32_t>(static_cast<uint32_t>(word[r]) << shift) >> 24;
      values[j * kTile + r] += weight * static_cast<float>(coordinate);
    }
  }
}

// The gain indices of a group, one byte per row, shared with the other groups of those bytes.
inline const uint8_t* GainBytes(const WeightView& w, int64_t tile, int64_t group) {
  const int64_t packed = (w.groups + w.gains_per_byte - 1) / w.gains_per_byte;
  return w.gains + (tile * packed + group / w.gains_per_byte) * w.tile;
}

inline void ReadGains(const WeightView& w, int64_t tile, int64_t group, float* gain) {
  if (w.gains == nullptr) {
    for (int r = 0; r < kTile; ++r) gain[r] = w.gain_values[0];
    return;
  }
  const uint8_t* bytes = GainBytes(w, tile, group);
  const int shift = w.gain_bits * static_cast<int>(group % w.gains_per_byte);
  const int mask = (1 << w.gain_bits) - 1;
  for (int r = 0; r < w.tile; ++r) gain[r] = w.gain_values[(bytes[r] >> shift) & mask];
  for (int r = w.tile; r < kTile; ++r) gain[r] = 0;
}

template <typename Code>
void DecodeCodes(const WeightView& w, int64_t tile, int64_t first, int64_t count, float* panel) {
  const int blocks = kGroup / w.dim;
  const int stride = w.dim == 8 ? 2 : 1;
  const Code* codes =
      static_cast<const Code*>(w.codes) + (tile * w.groups + first) * w.elements * w.tile;
  for (int64_t g = 0; g < count; ++g) {
    float* values = panel + g * kGroup * kTile;
    memset(values, 0, kGroup * kTile * sizeof(float));
    for (int s = 0; s < w.slot_count; ++s) {
      const Slot& slot = w.slots[s];
      const float weight = w.level_weights[s / blocks];
      float* block = values + (s % blocks) * w.dim * kTile;
      alignas(64) int32_t entry[kTile];
      ReadDigits(codes + slot.element * w.tile, slot, w.tile, entry);
      const int head = w.dim < 4 ? w.dim : 4;
      AddWords(w.words, entry, stride, w.tile, head, weight, block);
      if (stride == 2) AddWords(w.words + 1, entry, stride, w.tile, 4, weight, block + 4 * kTile);
    }
    alignas(64) float gain[kTile];
    ReadGains(w, tile, first + g, gain);
    for (int j = 0; j < kGroup; ++j) {
      for (int r = 0; r < kTile; ++r) {
        values[j * kTile + r] = (values[j * kTile + r] - w.centre[j]) * gain[r];
      }
    }
    codes += static_cast<int64_t>(w.elements) * w.tile;
  }
}

void DecodeGeneral(const WeightView& w, int64_t tile, int64_t first, int64_t count, float* panel) {
  if (w.code_bytes == 1) {
    DecodeCodes<uint8_t>(w, tile, first, count, panel);
  } else {
    DecodeCodes<uint16_t>(w, tile, first, count, panel);
  }
}

constexpr int kLanes = sizeof(Vec) / sizeof(float);

// Vecs * kLanes rows by Columns columns, all sums in registers. Every sum adds its products in the
// order of k, so a result depends neither on the number of columns done together nor on the number
// of threads.
template <int Vecs, int Columns>
inline void MultiplyBlock(const float* panel, const float* a, int64_t depth, float* sums) {
  Vec sum[Columns][Vecs];
  for (int c = 0; c < Columns; ++c) {
    for (int v = 0; v < Vecs; ++v) memcpy(&sum[c][v], sums + c * kTile + v * kLanes, sizeof(Vec));
  }
  for (int64_t k = 0; k < depth; ++k) {
    Vec row[Vecs];
    for (int v = 0; v < Vecs; ++v) memcpy(&row[v], panel + k * kTile + v * kLanes, sizeof(Vec));
    for (int c = 0; c < Columns; ++c) {
      const Vec factor = a[k * Columns + c] - Vec{};
      for (int v = 0; v < Vecs; ++v) sum[c][v] = MulAdd(row[v], factor, sum[c][v]);
    }
  }
  for (int c = 0; c < Columns; ++c) {
    for (int v = 0; v < Vecs; ++v) memcpy(sums + c * kTile + v * kLanes, &sum[c][v], sizeof(Vec));
  }
}

template <int Columns>
void MultiplyColumns(const float* panel, const float* a, int64_t depth, int rows, float* sums) {
  int r = 0;
  if constexpr (kLanes == 16) {
    for (; r + 3 * kLanes < rows; r += 4 * kLanes)
      MultiplyBlock<4, Columns>(panel + r, a, depth, sums + r);
    if (r + 2 * kLanes < rows) {
      MultiplyBlock<3, Columns>(panel + r, a, depth, sums + r);
      r += 3 * kLanes;
    }
  }
  for (; r + kLanes < rows; r += 2 * kLanes)
    MultiplyBlock<2, Columns>(panel + r, a, depth, sums + r);
  if (r < rows) MultiplyBlock<1, Columns>(panel + r, a, depth, sums + r);
}

void MultiplyGeneral(const float* panel, const float* a, int64_t depth, int columns, int rows,
                     float* sums) {
  static_assert(kColumns == 6);
  switch (columns) {
    case 1:
      return MultiplyColumns<1>(panel, a, depth, rows, sums);
    case 2:
      return MultiplyColumns<2>(panel, a, depth, rows, sums);
    case 3:
      return MultiplyColumns<3>(panel, a, depth, rows, sums);
    case 4:
      return MultiplyColumns<4>(panel, a, depth, rows, sums);
    case 5:
      return MultiplyColumns<5>(panel, a, depth, rows, sums);
    default:
      return MultiplyColumns<6>(panel, a, depth, rows, sums);
  }
}

void StoreInOrder(const float* lanes, int64_t columns, const RowScales& rows, float* y, int64_t stride) {
  StoreRows(lanes, columns, rows, y, stride,
            [](const float* from, float* sums) { memcpy(sums, from, kTile * sizeof *sums); });
}

}  // namespace
}  // namespace cosetq

#endif  // COSETQ_CPU_GENERIC_H_
