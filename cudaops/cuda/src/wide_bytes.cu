#include "wide.cuh"

namespace cosetq::cuda {

COSETQ_MULTIPLY_WIDE(true);

}  // namespace cosetq::cuda
