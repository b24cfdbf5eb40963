// Native tests: plain C++, one line per failure, a closing line with the counts.
//
//   cosetq_test [--short]

#include <cstring>

#include "check.h"

int main(int argc, char** argv) {
  const bool brief = argc > 1 && std::strcmp(argv[1], "--short") == 0;
  using namespace cosetq::test;
  TestHalf();
  TestDispatch();
  TestHostileWeights();
  TestPaths();
  TestLinear(brief);
  TestAccuracy();
  TestManyRows();
  TestObserve();
  TestEncode();
  TestProduct();
  std::printf("%ld passed, %ld failed\n", Passed(), Failed());
  return Failed() == 0 ? 0 : 1;
}
