// Functions of one and two numbers.

#ifndef COSETQ_EP_MATH_H_
#define COSETQ_EP_MATH_H_

#include <cmath>
#include <type_traits>

#include "scalar.h"

namespace cosetq::ep {

enum class Unary {
  kAbs, kCeil, kClip, kCos, kElu, kErf, kExp, kFastGelu, kFloor, kGelu, kHardSigmoid, kHardSwish, kIdentity,
  kLeakyRelu, kLog, kNeg, kQuickGelu, kReciprocal, kRelu, kRound, kSigmoid, kSign, kSin, kSoftplus, kSqrt,
  kTanh,
};

// With up to two parameters: slopes, limits and the like.
struct UnaryFunction {
  Unary kind = Unary::kIdentity;
  float alpha = 0, beta = 0;
};

// The upper limit where it is below the lower one; NaN stays.
COSETQ_HD inline float Clip(float x, float low, float high) {
  const float above = x < low ? low : x;
  return above > high ? high : above;
}
// Overflow wraps around.
COSETQ_HD inline int64_t Negative(int64_t x) { return static_cast<int64_t>(0 - static_cast<uint64_t>(x)); }
COSETQ_HD inline float Sigmoid(float x) { return 1 / (1 + expf(-x)); }
COSETQ_HD inline float Gelu(float x) { return 0.5f * x * (1 + erff(x * 0.70710678118654752f)); }
COSETQ_HD inline float FastGelu(float x) {
  return 0.5f * x * (1 + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
}

COSETQ_HD inline float Apply(const UnaryFunction& f, float x) {
  switch (f.kind) {
    case Unary::kAbs: return fabsf(x);
    case Unary::kCeil: return ceilf(x);
    case Unary::kClip: return Clip(x, f.alpha, f.beta);
    case Unary::kCos: return cosf(x);
    case Unary::kElu: return x < 0 ? f.alpha * expm1f(x) : x;
    case Unary::kErf: return erff(x);
    case Unary::kExp: return expf(x);
    case Unary::kFastGelu: return FastGelu(x);
    case Unary::kFloor: return floorf(x);
    case Unary::kGelu: return Gelu(x);
    case Unary::kHardSigmoid: return Clip(f.alpha * x + f.beta, 0, 1);
    case Unary::kHardSwish: return x * Clip(x / 6 + 0.5f, 0, 1);
    case Unary::kIdentity: return x;
    case Unary::kLeakyRelu: return x < 0 ? f.alpha * x : x;
    case Unary::kLog: return logf(x);
    case Unary::kNeg: return -x;
    case Unary::kQuickGelu: return x * Sigmoid(f.alpha * x);
    case Unary::kReciprocal: return 1 / x;
    case Unary::kRelu: return x < 0 ? 0 : x;  // NaN stays
    case Unary::kRound: return rintf(x);
    case Unary::kSigmoid: return Sigmoid(x);
    case Unary::kSign: return x > 0 ? 1.0f : x < 0 ? -1.0f : x;
    case Unary::kSin: return sinf(x);
    case Unary::kSoftplus: return x > 20 ? x : log1pf(expf(x));
    case Unary::kSqrt: return sqrtf(x);
    case Unary::kTanh: return tanhf(x);
  }
  return x;
}

COSETQ_HD inline int64_t Apply(const UnaryFunction& f, int64_t x) {
  switch (f.kind) {
    case Unary::kAbs: return x < 0 ? Negative(x) : x;
    case Unary::kNeg: return Negative(x);
    case Unary::kRelu: return x < 0 ? 0 : x;
    case Unary::kSign: return (x > 0) - (x < 0);
    default: return x;
  }
}

enum class Binary { kAdd, kBiasFastGelu, kBiasGelu, kDiv, kMax, kMin, kMod, kMul, kPow, kPRelu, kSub };

COSETQ_HD inline float Apply(Binary kind, float a, float b) {
  switch (kind) {
    case Binary::kAdd: return a + b;
    case Binary::kBiasFastGelu: return FastGelu(a + b);
    case Binary::kBiasGelu: return Gelu(a + b);
    case Binary::kDiv: return a / b;
    case Binary::kMax: return a > b || a != a ? a : b;
    case Binary::kMin: return a < b || a != a ? a : b;
    case Binary::kMod: return fmodf(a, b);
    case Binary::kMul: return a * b;
    case Binary::kPow: return b == 2 ? a * a : powf(a, b);
    case Binary::kPRelu: return a < 0 ? a * b : a;
    case Binary::kSub: return a - b;
  }
  return a;
}

COSETQ_HD inline int64_t Apply(Binary kind, int64_t a, int64_t b) {
  switch (kind) {
    case Binary::kAdd: return a + b;
    case Binary::kDiv: return b == 0 ? 0 : b == -1 ? Negative(a) : a / b;  // the least number by -1 is a trap of the processor
    case Binary::kMax: return a > b ? a : b;
    case Binary::kMin: return a < b ? a : b;
    case Binary::kMod: {  // with the sign of b, as ONNX wants it of integers
      const int64_t rest = b == 0 || b == -1 ? 0 : a % b;
      return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
    }
    case Binary::kMul: return a * b;
    case Binary::kPow: {
      if (b < 0) return a == 1 ? 1 : a == -1 ? (b % 2 == 0 ? 1 : -1) : 0;
      uint64_t power = 1, factor = static_cast<uint64_t>(a);
      for (; b > 0; b /= 2, factor *= factor) {
        if (b % 2 != 0) power *= factor;
      }
      return static_cast<int64_t>(power);
    }
    case Binary::kSub: return a - b;
    default: return a;
  }
}

enum class Relation { kEqual, kGreater, kGreaterOrEqual, kLess, kLessOrEqual };

template <typename T>
COSETQ_HD inline bool Holds(Relation relation, T a, T b) {
  switch (relation) {
    case Relation::kEqual: return a == b;
    case Relation::kGreater: return a > b;
    case Relation::kGreaterOrEqual: return a >= b;
    case Relation::kLess: return a < b;
    case Relation::kLessOrEqual: return a <= b;
  }
  return false;
}

// Numbers are computed with in float or in 64 bit integers.
COSETQ_HD inline float Wide(float x) { return x; }
COSETQ_HD inline float Wide(Half x) { return ToFloat(x); }
COSETQ_HD inline int64_t Wide(int32_t x) { return x; }
COSETQ_HD inline int64_t Wide(int64_t x) { return x; }
COSETQ_HD inline int64_t Wide(uint8_t x) { return x; }
COSETQ_HD inline int64_t Wide(int8_t x) { return x; }
COSETQ_HD inline int64_t Wide(uint16_t x) { return x; }
COSETQ_HD inline int64_t Wide(bool x) { return x; }

// To an integer by way of one of at least 32 bits, to the nearest end of its range where it is beyond, and 0 for NaN: C++ leaves both open.
template <typename T>
COSETQ_HD inline T Narrow(float x) {
  if constexpr (std::is_integral_v<T>) {
    using Wide = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;
    const float end = sizeof(T) == 8 ? 9223372036854775808.0f : 2147483648.0f;
    const Wide largest = sizeof(T) == 8 ? static_cast<Wide>(INT64_MAX) : static_cast<Wide>(INT32_MAX);
    return static_cast<T>(x != x ? 0 : x >= end ? largest : x < -end ? -largest - 1 : static_cast<Wide>(x));
  } else {
    return FromFloat<T>(x);
  }
}
template <>
COSETQ_HD inline bool Narrow<bool>(float x) {
  return x != 0;
}
template <typename T>
COSETQ_HD inline T Narrow(int64_t x) {
  return static_cast<T>(x);
}
template <>
COSETQ_HD inline Half Narrow<Half>(int64_t x) {
  return FromFloat<Half>(static_cast<float>(x));
}
template <>
COSETQ_HD inline bool Narrow<bool>(int64_t x) {
  return x != 0;
}

}  // namespace cosetq::ep

#endif  // COSETQ_EP_MATH_H_
