// The rotation of activations that a weight was coded under: A * diag(s) * blockdiag(H / sqrt(B)).

#ifndef COSETQ_CPU_ROTATION_H_
#define COSETQ_CPU_ROTATION_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace cosetq {

struct Rotation {
  int64_t block = 1;           // B, a power of two that divides the columns
  std::vector<float> factors;  // s_k / sqrt(B) of every column; empty for no rotation

  // Turns one row in place.
  void Apply(float* row) const;
};

}  // namespace cosetq

#endif  // COSETQ_CPU_ROTATION_H_
