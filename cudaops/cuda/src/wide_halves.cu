#include "wide.cuh"

namespace cosetq::cuda {

COSETQ_MULTIPLY_WIDE(false);

}  // namespace cosetq::cuda
