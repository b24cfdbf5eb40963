// Places that a tensor names.

#ifndef COSETQ_EP_INDICES_CUH_
#define COSETQ_EP_INDICES_CUH_

#include "scalar.h"

namespace cosetq::ep {

template <typename Index>
struct Indices {
  const Index* data;
  // The place of index i among n, -1 when out of range.
  COSETQ_HD int At(int i, int n) const {
    int64_t at = data[i];
    if (at < 0) at += n;
    return at >= 0 && at < n ? static_cast<int>(at) : -1;
  }
};

}  // namespace cosetq::ep

#endif  // COSETQ_EP_INDICES_CUH_
