#include "variants.cuh"

namespace cosetq::cuda {

void RunTwoBits(int rows, int cols, int batch) { RunVariantsOf<Form::kOneByte>("2 bits", rows, cols, batch); }

}  // namespace cosetq::cuda
