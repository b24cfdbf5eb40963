// Element types, and code that runs on the device and on the host alike.

#ifndef COSETQ_EP_SCALAR_H_
#define COSETQ_EP_SCALAR_H_

#include <cstddef>
#include <cstdint>

#include "cpu/half.h"
#include "host_device.h"

#ifdef __CUDACC__
#include <cuda_fp16.h>
#endif

namespace cosetq::ep {

// ONNX's numbers of the element types that the provider handles.
enum class Type : int {
  kNone = 0,
  kFloat = 1,
  kUint8 = 2,
  kInt8 = 3,
  kUint16 = 4,
  kInt32 = 6,
  kInt64 = 7,
  kBool = 9,
  kHalf = 10,
};

inline size_t SizeOf(Type type) {
  switch (type) {
    case Type::kUint8:
    case Type::kInt8:
    case Type::kBool:
      return 1;
    case Type::kUint16:
    case Type::kHalf:
      return 2;
    case Type::kFloat:
    case Type::kInt32:
      return 4;
    case Type::kInt64:
      return 8;
    case Type::kNone:
      break;
  }
  return 0;
}

// IEEE binary16; all arithmetic is done in float.
struct Half {
  uint16_t bits;
};

COSETQ_HD inline float ToFloat(float x) { return x; }
COSETQ_HD inline float ToFloat(Half x) {
#ifdef __CUDA_ARCH__
  return __half2float(__ushort_as_half(x.bits));
#else
  return HalfToFloat(x.bits);
#endif
}

template <typename T>
COSETQ_HD inline T FromFloat(float x) {
  return static_cast<T>(x);
}
template <>
COSETQ_HD inline Half FromFloat<Half>(float x) {
#ifdef __CUDA_ARCH__
  return Half{__half_as_ushort(__float2half_rn(x))};
#else
  return Half{FloatToHalf(x)};
#endif
}

}  // namespace cosetq::ep

#endif  // COSETQ_EP_SCALAR_H_
