#include "encode.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "dispatch.h"

namespace cosetq {
namespace {

const EncodeKernel* const kEncodeKernels[] = {
    &kPortableEncode,
#if defined(__x86_64__)
    &kAvx2Encode,
    &kAvxVnniEncode,
    &kAvx512Encode,
    &kAmxEncode,
#endif
};

const EncodeKernel& ActiveEncode() {
  for (const EncodeKernel* kernel : kEncodeKernels) {
    if (std::strcmp(kernel->isa, ActiveKernels().name) == 0) return *kernel;
  }
  return kPortableEncode;
}

}  // namespace

bool Encoder::Takes(const EncodeWork& work, int64_t item) const {
  const float step = work.steps[item];
  if (!(step > 0) || std::isinf(step) || std::isinf(1 / step)) return false;
  const float limit = std::min(std::numeric_limits<float>::max(), step * view_.max_steps);
  const int64_t size = work.groups * schema::kGroup;
  const float* row = work.rows + (work.at == nullptr ? item : work.at[item]) * size;
  int beyond = 0;  // without a branch, so that the loop is vectorized
  for (int64_t i = 0; i < size; ++i) beyond |= !(std::fabs(row[i]) <= limit);
  return beyond == 0;
}

int64_t Encoder::Encode(const EncodeWork& work) const {
  const EncodeFn encode = ActiveEncode().encode;
  const int64_t row = work.groups * schema::kGroup;
  const int64_t slots = work.groups * EncodeSlots(view_);
  int64_t refused = 0;
  for (int64_t first = 0; first < work.count;) {
    int64_t last = first;
    while (last < work.count && Takes(work, last)) ++last;
    EncodeWork part = work;
    part.steps += first;
    part.sse += first;
    part.count = last - first;
    if (part.at == nullptr) {
      part.rows += first * row;
    } else {
      part.at += first;
    }
    if (part.indices != nullptr) {
      part.indices += first * slots;
      part.gains += first * work.groups;
    }
    encode(view_, part);
    if (last < work.count) {
      work.sse[last++] = -1;
      ++refused;
    }
    first = last;
  }
  return refused;
}

void Encoder::EncodeInMetric(const MetricWork& work) const {
  ActiveEncode().encode_in_metric(view_, work);
}

}  // namespace cosetq
