// Sums of products in a unit that all parts of a row have in common.

#ifndef COSETQ_CUDA_FIXED_POINT_CUH_
#define COSETQ_CUDA_FIXED_POINT_CUH_

#include "views.h"

namespace cosetq::cuda {

// Sums as integers, which can be added up in any order. Their unit, a power of two, leaves room for those of a row whose
// activations and weights are all as large as they may be.
struct FixedPoint {
  int exponent;       // of the unit, as of a float
  float scale, step;  // one over it, and the unit; 0 and NaN for a row with NaN or infinity

  // peak: of the row, as RowLoads has it.
  __device__ __forceinline__ FixedPoint(const PackedView& w, uint32_t peak) {
    constexpr int kSumBits = 30, kMost = 14, kLeast = 32;  // exponent of the least unit, so that scales are finite
    // The peak is less than 2^left units, which are not smaller than the steps of activations in 15 bits.
    const int left = min(kSumBits - w.bytes.bits - (32 - __clz(w.cols - 1)), kMost);
    exponent = max(static_cast<int>(peak >> 23) + 1 - left, kLeast);
    const bool finite = peak < 0x7f800000u;
    step = finite ? __int_as_float(exponent << 23) : __int_as_float(0x7fffffff);
    scale = finite ? __int_as_float((254 - exponent) << 23) : 0;
  }
};

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_FIXED_POINT_CUH_
