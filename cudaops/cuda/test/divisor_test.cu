// Needs no GPU: quotients of Divisor, by which every kernel finds its tiles.

#include <cstdint>
#include <string>

#include "check.h"
#include "divisor.h"

namespace cosetq::test {

void TestDivisor() {
  constexpr int64_t kMost = INT32_MAX;
  int64_t step = 1, wrong = 0;
  for (int64_t by = 1; by <= 1 << 18; by += step) {
    if (by > 5000) step = by % 97 + 1;
    const Divisor divisor(static_cast<int32_t>(by));
    bool right = divisor.Of(static_cast<int>(kMost)) == kMost / by;
    // On either side of multiples, where a quotient changes.
    for (int i = 0; i <= 64; ++i) {
      const int64_t multiple = kMost / by * i / 64 * by;
      right &= divisor.Of(static_cast<int>(multiple)) == multiple / by;
      if (multiple > 0) right &= divisor.Of(static_cast<int>(multiple - 1)) == multiple / by - 1;
    }
    if (!right && wrong == 0) wrong = by;
  }
  Check(wrong == 0, "quotients by " + std::to_string(wrong));
}

}  // namespace cosetq::test
