// The workbench: numbered variants of the small-batch kernel, see variants.cuh.
//
//   workbench [rows cols [batch]]

#include "workbench.h"

#include <cstdio>
#include <cstdlib>
#include <exception>

#include "cosetq/cuda.h"

int main(int argc, char** argv) {
  if (cosetq_cuda_device_count() == 0) {
    std::printf("skipped: %s\n", cosetq_cuda_error());
    return 0;
  }
  const int rows = argc > 2 ? std::atoi(argv[1]) : 14336, cols = argc > 2 ? std::atoi(argv[2]) : 4096;
  const int batch = argc > 3 ? std::atoi(argv[3]) : 1;
  try {
    cosetq::cuda::RunFourBits(rows, cols, batch);
    cosetq::cuda::RunThreeBits(rows, cols, batch);
    cosetq::cuda::RunTwoBits(rows, cols, batch);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
