// Tests of the GPU library through its C interface: one line per failure, a closing line with the counts.
//
//   cosetq_cuda_test [--short]

#include <cstdio>
#include <cstring>

#include "check.h"
#include "cosetq/cuda.h"

namespace cosetq::test {
void TestCudaLinear(bool brief);
void TestCudaColumns(bool brief);
void TestCudaDecode();
void TestCudaNotFinite();
void TestCudaEncode();
void TestCudaErrors();
void TestCudaJoin();
void TestCudaTables();
void TestCudaOrder(bool brief);
void TestDivisor();
}  // namespace cosetq::test

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);  // failures so far are there, whatever becomes of the test
  const bool brief = argc > 1 && std::strcmp(argv[1], "--short") == 0;
  using namespace cosetq::test;
  TestDivisor();
  if (cosetq_cuda_device_count() == 0) {
    std::printf("%ld passed, %ld failed, others skipped: %s\n", Passed(), Failed(), cosetq_cuda_error());
    return Failed() == 0 ? 0 : 1;
  }
  TestCudaErrors();
  TestCudaJoin();
  TestCudaEncode();
  TestCudaDecode();
  TestCudaTables();
  TestCudaOrder(brief);
  TestCudaNotFinite();
  TestCudaColumns(brief);
  TestCudaLinear(brief);
  std::printf("%ld passed, %ld failed\n", Passed(), Failed());
  return Failed() == 0 ? 0 : 1;
}
