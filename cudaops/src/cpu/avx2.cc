// AVX2, FMA and F16C. Built with its own flags; reached only through dispatch.cc.

#include <immintrin.h>
#include <stdint.h>

namespace cosetq {
namespace {

typedef float Vec __attribute__((vector_size(32)));
inline Vec MulAdd(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }

}  // namespace
}  // namespace cosetq

#include "avx2_rows.h"
#include "generic_d4.h"
#include "moments.h"
#include "product.h"

namespace cosetq {
namespace {

void ToFloat(const uint16_t* from, float* to, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    _mm256_storeu_ps(to + i,
                     _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
  }
  for (; i < count; ++i) to[i] = HalfToFloat(from[i]);
}

void ToHalf(const float* from, uint16_t* to, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
  }
  for (; i < count; ++i) to[i] = FloatToHalf(from[i]);
}

}  // namespace

const Kernels kAvx2Kernels = {
    "avx2",
    true,
    ToFloat,
    ToHalf,
    DecodeGeneral,
    DecodeD4,
    MultiplyGeneral,
    StoreInOrder,
    AddProduct<float>,
    AddProduct<double>,
    kMomentKernels,
    {{Avx2LookupBuild8, Avx2Lookup8, Avx2StoreLookup, 2},
     {Avx2LookupBuild16, Avx2Lookup16, Avx2StoreQuarters, 1}},
    {&kAvx2Panel8, &kAvx2Panel16},
};

const Kernels kAvxVnniKernels = {
    "avxvnni",
    true,
    ToFloat,
    ToHalf,
    DecodeGeneral,
    DecodeD4,
    MultiplyGeneral,
    StoreInOrder,
    AddProduct<float>,
    AddProduct<double>,
    kMomentKernels,
    {{Avx2LookupBuild8, Avx2Lookup8, Avx2StoreLookup, 2},
     {Avx2LookupBuild16, Avx2Lookup16, Avx2StoreQuarters, 1}},
    {&kAvxVnniPanel8, &kAvxVnniPanel16},
};

}  // namespace cosetq
