#include "variants.cuh"

namespace cosetq::cuda {

void RunFourBits(int rows, int cols, int batch) { RunVariantsOf<Form::kTwoByte>("4 bits", rows, cols, batch); }

}  // namespace cosetq::cuda
