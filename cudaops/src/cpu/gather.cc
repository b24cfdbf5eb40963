#include "gather.h"

namespace cosetq {
namespace {

template <typename Code>
void Decode(const WeightView& w, int64_t row, float* values) {
  const int64_t tile = row / w.tile, place = row % w.tile;
  const int blocks = kGroup / w.dim;
  const int words = w.dim == 8 ? 2 : 1;
  const Code* codes =
      static_cast<const Code*>(w.codes) + tile * w.groups * w.elements * w.tile + place;
  const int64_t packed =
      w.gains == nullptr ? 0 : (w.groups + w.gains_per_byte - 1) / w.gains_per_byte;
  const float scale = w.row_scales[row];
  for (int64_t g = 0; g < w.groups; ++g) {
    float sum[kGroup] = {};
    for (int s = 0; s < w.slot_count; ++s) {
      const Slot& slot = w.slots[s];
      const int32_t digit = codes[static_cast<int64_t>(slot.element) * w.tile] / slot.divisor %
                                slot.modulus +
                            slot.base;
      const int32_t* word = w.words + static_cast<int64_t>(digit) * words;
      const float weight = w.level_weights[s / blocks];
      float* block = sum + s % blocks * w.dim;
      for (int j = 0; j < w.dim; ++j) {
        const uint32_t bits = static_cast<uint32_t>(word[j / 4]) >> (8 * (j % 4));
        block[j] += weight * static_cast<float>(static_cast<int8_t>(bits & 0xff));
      }
    }
    float gain = w.gain_values[0];
    if (w.gains != nullptr) {
      const int byte = w.gains[(tile * packed + g / w.gains_per_byte) * w.tile + place];
      const int shift = w.gain_bits * static_cast<int>(g % w.gains_per_byte);
      gain = w.gain_values[(byte >> shift) & ((1 << w.gain_bits) - 1)];
    }
    // Group g holds the columns g, g + groups, ...
    for (int j = 0; j < kGroup; ++j) {
      const int64_t column = g + j * w.groups;
      if (column < w.cols) values[column] = (sum[j] - w.centre[j]) * gain * scale;
    }
    codes += static_cast<int64_t>(w.elements) * w.tile;
  }
}

}  // namespace

void DecodeRow(const WeightView& w, int64_t row, float* values) {
  if (w.code_bytes == 1) {
    Decode<uint8_t>(w, row, values);
  } else {
    Decode<uint16_t>(w, row, values);
  }
}

}  // namespace cosetq
