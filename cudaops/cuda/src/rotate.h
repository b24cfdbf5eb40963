// The rotation of activations that a weight was coded under.

#ifndef COSETQ_CUDA_ROTATE_H_
#define COSETQ_CUDA_ROTATE_H_

#include <cuda_runtime.h>

#include "device.h"
#include "views.h"

namespace cosetq::cuda {

// Writes batch rows of a, float or float16, rotated, to out, [batch, cols] in float.
void Rotate(const Turn& turn, const void* a, bool half, int64_t batch, int64_t cols, float* out, cudaStream_t stream);

// Whether a block has room in shared memory for a row that it rotates, beside a little else.
constexpr int kBesideTurned = 64;
inline bool HasRoomToTurn(int64_t cols) { return cols * int64_t{sizeof(float)} <= CurrentDevice().shared_limit - kBesideTurned; }

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_ROTATE_H_
