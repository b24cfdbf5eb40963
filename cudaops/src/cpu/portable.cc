// Kernels for any processor: no intrinsics, the compiler's baseline instruction set.

#include <stdint.h>

namespace cosetq {
namespace {

typedef float Vec __attribute__((vector_size(16)));
inline Vec MulAdd(Vec a, Vec b, Vec c) { return a * b + c; }

}  // namespace
}  // namespace cosetq

#include "generic_d4.h"
#include "moments.h"
#include "product.h"

namespace cosetq {
namespace {

void ToFloat(const uint16_t* from, float* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = HalfToFloat(from[i]);
}

void ToHalf(const float* from, uint16_t* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = FloatToHalf(from[i]);
}

}  // namespace

const Kernels kPortableKernels = {
    "portable", false, ToFloat, ToHalf, DecodeGeneral, DecodeD4, MultiplyGeneral, StoreInOrder, AddProduct<float>, AddProduct<double>, kMomentKernels, {}, {},
};

}  // namespace cosetq
