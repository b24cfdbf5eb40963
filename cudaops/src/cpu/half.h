// IEEE binary16 in plain integers, for code that must run anywhere.

#ifndef COSETQ_CPU_HALF_H_
#define COSETQ_CPU_HALF_H_

#include <stdint.h>
#include <string.h>

namespace cosetq {

// static: every file keeps its own copy, see weight_view.h.
static inline float HalfToFloat(uint16_t half) {
  // Shifting the fields into place leaves the exponent 112 too small; the multiplication mends it,
  // subnormals included.
  const uint32_t magnitude = static_cast<uint32_t>(half & 0x7fff) << 13;
  uint32_t bits = magnitude;
  float value;
  memcpy(&value, &bits, sizeof value);
  value *= 0x1p112f;
  memcpy(&bits, &value, sizeof bits);
  if (magnitude >= 0x0f800000u) bits = magnitude | 0x7f800000u;  // infinity and NaN
  bits |= static_cast<uint32_t>(half & 0x8000) << 16;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// Rounds to nearest, ties to even.
static inline uint16_t FloatToHalf(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) return sign | 0x7e00;   // NaN
  if (bits >= 0x477ff000u) return sign | 0x7c00;  // rounds to infinity
  if (bits < 0x38800000u) {                       // subnormal: let the adder round at 2^-24
    float magnitude;
    memcpy(&magnitude, &bits, sizeof magnitude);
    magnitude += 0.5f;
    memcpy(&bits, &magnitude, sizeof bits);
    return sign | static_cast<uint16_t>(bits - 0x3f000000u);
  }
  bits += 0xc8000fffu + ((bits >> 13) & 1);  // rebias the exponent, round half to even
  return sign | static_cast<uint16_t>(bits >> 13);
}

}  // namespace cosetq

#endif  // COSETQ_CPU_HALF_H_
