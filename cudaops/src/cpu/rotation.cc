#include "rotation.h"

namespace cosetq {

// The fast Walsh-Hadamard transform of each block: butterflies of growing stride.
void Rotation::Apply(float* row) const {
  const int64_t cols = static_cast<int64_t>(factors.size());
  for (int64_t k = 0; k < cols; ++k) row[k] *= factors[static_cast<size_t>(k)];
  for (int64_t half = 1; half < block; half *= 2) {
    for (int64_t first = 0; first < cols; first += 2 * half) {
      float* low = row + first;
      float* high = low + half;
      for (int64_t i = 0; i < half; ++i) {
      const float sum = low[i] + high[i];
        high[i] = low[i] - high[i];
        low[i] = sum;
      }
    }
  }
}

}  // namespace cosetq
