// What the workbench can run. Each form has a file of its own, so that they compile side by side.

#ifndef COSETQ_CUDA_BENCH_WORKBENCH_H_
#define COSETQ_CUDA_BENCH_WORKBENCH_H_

namespace cosetq::cuda {

void RunFourBits(int rows, int cols, int batch);
void RunThreeBits(int rows, int cols, int batch);
void RunTwoBits(int rows, int cols, int batch);

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_BENCH_WORKBENCH_H_
