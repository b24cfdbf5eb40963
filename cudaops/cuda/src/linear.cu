#include "linear.h"

#include <algorithm>

#include "activations.h"
#include "general.h"
#include "small.h"

namespace cosetq::cuda {

std::atomic<int64_t>& Calls(Path path) {
  static std::atomic<int64_t> calls[kPaths];
  return calls[path];
}

size_t LinearWorkspace(const DeviceWeight& w, int64_t batch, bool, bool) {
  if (!w.packed())
    return w.turn().factors == nullptr ? 0 : static_cast<size_t>(batch * w.cols()) * sizeof(float);
  return FragmentBytes(w.packed_view(), SmallRoom(batch));
}

void Linear(const DeviceWeight& w, const LinearCall& call, cudaStream_t stream) {
  if (call.batch == 0) return;
  if (call.workspace_bytes < LinearWorkspace(w, call.batch, call.half, call.fast))
    throw Error("the workspace is too small: see cosetq_cuda_linear_workspace");
  if (!w.packed()) {
    if (w.turn().factors == nullptr) {
      GeneralLinear(w.general_view(), call.a, call.half, call.batch, call.y, call.half, stream);
    } else {
      auto* turned = static_cast<float*>(call.workspace);
      Rotate(w.turn(), call.a, call.half, call.batch, w.cols(), turned, stream);
      GeneralLinear(w.general_view(), turned, false, call.batch, call.y, call.half, stream);
    }
    ++Calls(kGeneral);
    return;
  }
  const PackedView& p = w.packed_view();
  const size_t size = call.half ? 2 : 4;
  for (int64_t first = 0; first < call.batch; first += kMaxSmallBatch) {
    const int count = static_cast<int>(std::min<int64_t>(kMaxSmallBatch, call.batch - first));
    const Fragments fragments = FragmentsAt(call.workspace, p, SmallRoom(count));
    Fragment(p, w.turn(), static_cast<const char*>(call.a) + static_cast<size_t>(first * w.cols()) * size, call.half, count,
             SmallRoom(count), fragments, stream);
    SmallLinear(p, fragments, count, static_cast<char*>(call.y) + static_cast<size_t>(first * w.rows()) * size,
                call.half, stream);
  }
  ++Calls(kSmall);
}

}  // namespace cosetq::cuda
