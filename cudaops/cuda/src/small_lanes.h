// The linear operation for few rows of activations, which lanes make ready as they read them.

#ifndef COSETQ_CUDA_SMALL_LANES_H_
#define COSETQ_CUDA_SMALL_LANES_H_

#include <cuda_runtime.h>

#include "views.h"

namespace cosetq::cuda {

constexpr int kLaneWarps = 16;  // of a block

// The panels of a warp, of which there may be few or many.
inline int64_t WarpPanels(const PackedView& w) { return static_cast<int64_t>(w.tiles) * w.chunks / w.shares / kLaneWarps; }
inline bool HasFew(const PackedView& w) { return WarpPanels(w) < 5; }
inline bool HasMany(const PackedView& w) { return WarpPanels(w) >= 16; }

// Whether activations lie as the kernel wants them, and it takes less time than the one where blocks or a kernel ahead make them ready.
bool TakesLanes(const PackedView& w, const void* a, bool half, int batch);

// Y = A * W^T + bias for up to 16 rows of float16, with such results, or up to four of floats. False, and nothing done, if the weight does
// not fit the device's shared memory.
bool SmallLanesHalves(const PackedView& w, const void* a, int batch, void* y, cudaStream_t stream);
bool SmallLanesFloats(const PackedView& w, const void* a, int batch, void* y, bool half_y, cudaStream_t stream);

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_SMALL_LANES_H_
