// Quotients without a division.

#ifndef COSETQ_DIVISOR_H_
#define COSETQ_DIVISOR_H_

#include <cstdint>

#include "host_device.h"

namespace cosetq {

// Divides numbers from 0 to 2^31 - 1 by one that is known beforehand, which takes a product and a shift. The factor is 2^shift over the
// number, and so little more, for shift is 31 plus its bits, that quotients come out right.
struct Divisor {
  uint32_t factor, shift;

  Divisor() = default;
  explicit Divisor(int32_t by) : shift(31) {
    while (int64_t{1} << (shift - 31) < by) ++shift;
    factor = static_cast<uint32_t>((uint64_t{1} << shift) / static_cast<uint32_t>(by)) + 1;
  }
  COSETQ_HD int Of(int n) const { return static_cast<int>(static_cast<uint64_t>(static_cast<uint32_t>(n)) * factor >> shift); }
};

}  // namespace cosetq

#endif  // COSETQ_DIVISOR_H_
