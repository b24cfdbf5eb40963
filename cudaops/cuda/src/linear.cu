#include "linear.h"

#include <algorithm>

#include "cublas.h"
#include "general.h"
#include "large.h"
#include "rotate.h"
#include "small.h"

namespace cosetq::cuda {

std::atomic<int64_t>& Calls(Path path) {
  static std::atomic<int64_t> calls[kPaths];
  return calls[path];
}

namespace {

// cuBLAS wants rows of 16 bytes for its fast kernels, and takes no others of int8.
bool IsLarge(const DeviceWeight& w, int64_t batch) { return batch >= kMinLargeBatch && w.cols() % 8 == 0 && HasCublas(); }

// Bytes of rotated activations, in float.
size_t RotatedBytes(const DeviceWeight& w, int64_t batch) {
  return w.turn().factors == nullptr ? 0 : static_cast<size_t>((batch * w.cols() * 4 + 255) / 256 * 256);
}

}  // namespace

size_t LinearWorkspace(const DeviceWeight& w, int64_t batch, bool half, bool) {
  const size_t rotated = RotatedBytes(w, batch);
  return rotated + (IsLarge(w, batch) ? LargeWorkspace(w, batch, half && rotated == 0, half) : 0);
}

void Linear(const DeviceWeight& w, const LinearCall& call, cudaStream_t stream) {
  if (call.batch == 0) return;
  if (call.workspace_bytes < LinearWorkspace(w, call.batch, call.half, call.fast))
    throw Error("the workspace is too small: see cosetq_cuda_linear_workspace");
  const void* a = call.a;
  bool half_a = call.half;
  if (w.turn().factors != nullptr) {
    Rotate(w.turn(), call.a, call.half, call.batch, w.cols(), static_cast<float*>(call.workspace), stream);
    a = call.workspace;
    half_a = false;
  }
  if (IsLarge(w, call.batch)) {
    LargeLinear(w, a, half_a, call.batch, call.y, call.half,
                static_cast<unsigned char*>(call.workspace) + RotatedBytes(w, call.batch), stream);
    ++Calls(kLarge);
    return;
  }
  if (!w.packed()) {
    GeneralLinear(w.general_view(), a, half_a, call.batch, call.y, call.half, stream);
    ++Calls(kGeneral);
    return;
  }
  const auto row = [](const void* p, int64_t first, int64_t cols, bool half) {
    return static_cast<const char*>(p) + first * cols * (half ? 2 : 4);
  };
  int64_t most = kMaxSmallBatch;
  for (int64_t first = 0; first < call.batch;) {
    const int count = static_cast<int>(std::min(most, call.batch - first));
    void* y = const_cast<char*>(row(call.y, first, w.rows(), call.half));
    if (SmallLinear(w.packed_view(), row(a, first, w.cols(), half_a), half_a, count, y, call.half, stream)) {
      first += count;
    } else if (most == 1) {
      throw Error("a row of " + std::to_string(w.cols()) + " columns does not fit the device's shared memory");
    } else {
      most /= 2;
    }
  }
  ++Calls(kSmall);
}

}  // namespace cosetq::cuda
