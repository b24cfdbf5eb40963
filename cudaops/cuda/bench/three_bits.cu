#include "variants.cuh"

namespace cosetq::cuda {

void RunThreeBits(int rows, int cols, int batch) { RunVariantsOf<Form::kNibbleByte>("3 bits", rows, cols, batch); }

}  // namespace cosetq::cuda
