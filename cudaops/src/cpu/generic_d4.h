// Decoding of the forms with whole-byte digits for processors without byte look-ups in registers.
// Everything has internal linkage, see weight_view.h.

#ifndef COSETQ_CPU_GENERIC_D4_H_
#define COSETQ_CPU_GENERIC_D4_H_

#include <string.h>

#include "generic.h"

namespace cosetq {
namespace {

typedef float Quad __attribute__((vector_size(16)));

inline Quad LoadQuad(const float* from) {
  Quad q;
  memcpy(&q, from, sizeof q);
  return q;
}

// Four rows of one block: whole codewords are added in registers, then turned so that each
// coordinate stands in a row.
template <Form kForm>
inline void DecodeRows(const FormTables& t, const uint8_t (*element)[kTile], int block, int row,
                       Quad centre, Quad gain, float* out) {
  Quad v[4];
  for (int i = 0; i < 4; ++i) {
    const int r = row + i;
    if constexpr (kForm == Form::kNibbleByte) {
      v[i] = LoadQuad(t.weighted[0][element[0][r] >> (4 * block) & 15]) +
             LoadQuad(t.weighted[1][element[1 + block][r]]);
    } else {
      v[i] = LoadQuad(t.weighted[0][element[block][r]]);
      if constexpr (kForm == Form::kTwoByte) v[i] += LoadQuad(t.weighted[1][element[2 + block][r]]);
    }
    v[i] -= centre;
  }
  const Quad a = __builtin_shufflevector(v[0], v[1], 0, 4, 1, 5),
             b = __builtin_shufflevector(v[0], v[1], 2, 6, 3, 7);
  const Quad c = __builtin_shufflevector(v[2], v[3], 0, 4, 1, 5),
             d = __builtin_shufflevector(v[2], v[3], 2, 6, 3, 7);
  const Quad turned[4] = {
      __builtin_shufflevector(a, c, 0, 1, 4, 5), __builtin_shufflevector(a, c, 2, 3, 6, 7),
      __builtin_shufflevector(b, d, 0, 1, 4, 5), __builtin_shufflevector(b, d, 2, 3, 6, 7)};
  for (int j = 0; j < 4; ++j) {
    const Quad scaled = turned[j] * gain;
    memcpy(out + (4 * block + j) * kTile + row, &scaled, sizeof scaled);
  }
}

template <Form kForm>
void DecodeForm(const WeightView& w, int64_t tile, int64_t first, int64_t count, float* panel) {
  const uint8_t* codes =
      static_cast<const uint8_t*>(w.codes) + (tile * w.groups + first) * w.elements * w.tile;
  const Quad centre = LoadQuad(w.centre);
  alignas(64) uint8_t element[4][kTile] = {};
  for (int64_t g = 0; g < count; ++g) {
    for (int e = 0; e < w.elements; ++e, codes += w.tile)
      memcpy(element[e], codes, static_cast<size_t>(w.tile));
    alignas(64) float gain[kTile];
    ReadGains(w, tile, first + g, gain);
    float* out = panel + g * kGroup * kTile;
    for (int block = 0; block < 2; ++block) {
      for (int r = 0; r < kTile; r += 4)
        DecodeRows<kForm>(*w.tables, element, block, r, centre, LoadQuad(gain + r), out);
    }
  }
}

void DecodeD4(const WeightView& w, int64_t tile, int64_t first, int64_t count, float* panel) {
  switch (w.form) {
    case Form::kOneByte:
      return DecodeForm<Form::kOneByte>(w, tile, first, count, panel);
    case Form::kTwoByte:
      return DecodeForm<Form::kTwoByte>(w, tile, first, count, panel);
    case Form::kNibbleByte:
      return DecodeForm<Form::kNibbleByte>(w, tile, first, count, panel);
    case Form::kNibbles:
    case Form::kTwoBits:
    case Form::kGeneral:
      return DecodeGeneral(w, tile, first, count, panel);
  }
}

}  // namespace
}  // namespace cosetq

#endif  // COSETQ_CPU_GENERIC_D4_H_
