#include "wide.cuh"

namespace cosetq::cuda {

template void MultiplyWide<true>(const PackedView& w, const WideActivations& x, WideCut cut, int batch, void* y, bool half_y,
                               cudaStream_t stream);

}  // namespace cosetq::cuda
