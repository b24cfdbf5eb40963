// One group of a weight of any form, decoded by one thread.

#ifndef COSETQ_CUDA_GENERAL_CUH_
#define COSETQ_CUDA_GENERAL_CUH_

#include "views.h"

namespace cosetq::cuda {

// The weights of a group of a row without the row's scale.
__device__ __forceinline__ void DecodeGroup(const GeneralView& w, int64_t row, int64_t group, float x[kGroup]) {
  const int64_t t = row / w.tile, r = row % w.tile;
  const int64_t first = (t * w.groups + group) * w.elements * w.tile + r;
#pragma unroll
  for (int j = 0; j < kGroup; ++j) x[j] = 0;
  const int blocks = kGroup / w.dim;
  for (int level = 0; level < w.levels; ++level) {
    const float weight = w.level_weights[level];
    for (int block = 0; block < blocks; ++block) {
      const Slot slot = w.slots[level * blocks + block];
      const int64_t at = first + static_cast<int64_t>(slot.element) * w.tile;
      const uint32_t code = w.code_bytes == 1 ? static_cast<const uint8_t*>(w.codes)[at]
                                              : static_cast<const uint16_t*>(w.codes)[at];
      const uint32_t entry =
          code / static_cast<uint32_t>(slot.divisor) % static_cast<uint32_t>(slot.modulus) + slot.base;
      const int words = w.dim == 8 ? 2 : 1;
      const uint32_t low = w.words[entry * words], high = words == 2 ? w.words[entry * 2 + 1] : 0;
      // Places in x are compile-time constants, so that it stays in registers.
#pragma unroll
      for (int j = 0; j < kGroup; ++j) {
        if (j / w.dim != block) continue;
        const int within = j - block * w.dim;
        const uint32_t word = within < 4 ? low : high;
        x[j] += weight * static_cast<float>(static_cast<signed char>(word >> (within % 4 * 8)));
      }
    }
  }
  float gain = w.gain_values[0];
  if (w.gains != nullptr) {
    const int64_t packed = (w.groups + w.gains_per_byte - 1) / w.gains_per_byte;
    const int byte = w.gains[(t * packed + group / w.gains_per_byte) * w.tile + r];
    gain = w.gain_values[byte >> (group % w.gains_per_byte * w.gain_bits) & ((1 << w.gain_bits) - 1)];
  }
#pragma unroll
  for (int j = 0; j < kGroup; ++j) x[j] = gain * (x[j] - w.centre[j]);
}

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_GENERAL_CUH_
