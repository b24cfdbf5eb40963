#include "check.h"

namespace cosetq::test {

long& Passed() {
  static long count = 0;
  return count;
}

long& Failed() {
  static long count = 0;
  return count;
}

bool Check(bool ok, const std::string& what) {
  ++(ok ? Passed() : Failed());
  if (!ok) std::printf("FAIL %s\n", what.c_str());
  return ok;
}

}  // namespace cosetq::test
