#include "small_lanes.h"

#include "small_lanes_bytes.cuh"

namespace cosetq::cuda {

bool SmallLanesFloats(const PackedView& w, const void* a, int batch, void* y, bool half_y, cudaStream_t stream) {
  return ForForm(w.form, [&](auto form) { return LaunchFew<decltype(form)::value>(w, static_cast<const float*>(a), batch, y, half_y, stream); });
}

}  // namespace cosetq::cuda
