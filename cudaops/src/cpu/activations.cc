#include "activations.h"

#include <algorithm>
#include <cstring>

namespace cosetq {

void PackBlock(const WeightView& w, const Kernels& kernels, const LinearCall& call, int64_t first,
               int64_t count, float* row, float* packed) {
  std::memset(packed, 0, static_cast<size_t>(PackedDepth(w) * count) * sizeof(float));
  for (int64_t c = 0; c < count; ++c) {
    const int64_t at = (first + c) * w.cols;
    const float* a = call.a == nullptr ? row : call.a + at;
    if (call.a == nullptr) kernels.to_float(call.a_half + at, row, w.cols);
    for (int64_t j = 0; j < kGroup; ++j) {
      const int64_t left = w.cols - j * w.groups;
      if (left <= 0) break;
      const float* from = a + j * w.groups;
      const int64_t groups = left < w.groups ? left : w.groups;
      float* to = packed + j * count + c;
      for (int64_t g = 0; g < groups; ++g) to[g * kGroup * count] = from[g];
    }
  }
}

void PackGroups(const WeightView& w, const Kernels& kernels, const LinearCall& call, int64_t row,
                int64_t first, int64_t count, float* packed) {
  std::memset(packed, 0, static_cast<size_t>(count * kGroup) * sizeof(float));
  constexpr int64_t kAtOnce = 32;
  for (int64_t j = 0; j < kGroup; ++j) {
    const int64_t at = j * w.groups + first;
    const int64_t here = std::min({count, w.groups - first, w.cols - at});
    for (int64_t g = 0; g < here; g += kAtOnce) {
      const int64_t some = std::min(kAtOnce, here - g);
      const float* from = call.a + row * w.cols + at + g;
      float values[kAtOnce];
      if (call.a == nullptr) {
        kernels.to_float(call.a_half + row * w.cols + at + g, values, some);
        from = values;
      }
      for (int64_t i = 0; i < some; ++i) packed[(g + i) * kGroup + j] = from[i];
    }
  }
}

}  // namespace cosetq
