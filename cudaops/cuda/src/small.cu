#include "small.h"

#include <cuda_fp16.h>

#include "small_bytes.cuh"

namespace cosetq::cuda {
namespace {

// As the workbench has it: many warps where registers allow. Where a warp has several panels it fetches more of them ahead, of which a
// part waits until the activations are there, which would otherwise come late; where it has many, that matters less.
template <Form kForm, int kRoom, bool kOwn, typename T>
bool Launch(const PackedView& w, const T* a, int batch, void* y, bool half_y, void* workspace, cudaStream_t stream) {
  constexpr int kWarps = kRoom == 16 ? 12 : 16, kUnit = PanelVectors(kForm) == 2 ? 2 : 1;  // whose panels are half as large
  const int64_t panels = static_cast<int64_t>(w.tiles) * w.chunks / w.shares / kWarps;
  if constexpr (kOwn && kForm == Form::kNibbles) {
    // They are decoded so soon that more on their way would only hold up the activations.
    if (panels >= 6 && LaunchSmallBytes<kForm, kRoom, kOwn, kWarps, 2, 2, kRoom == 1 ? 1 : 2>(w, a, batch, workspace, y, half_y, stream)) return true;
  } else if constexpr (kOwn && (kForm == Form::kTwoByte || kForm == Form::kNibbleByte)) {
    if (LaunchSmallBytes<kForm, kRoom, kOwn, kWarps, 3, 1, 1, true>(w, a, batch, workspace, y, half_y, stream)) return true;
  } else if constexpr (kRoom == 16) {
    if (LaunchSmallBytes<kForm, kRoom, kOwn, kWarps, 3 * kUnit, 2 * kUnit>(w, a, batch, workspace, y, half_y, stream)) return true;
  } else if constexpr (!(kOwn && IsColumns(kForm))) {
    if constexpr (kForm == Form::kTwoByte) {
      if (panels >= 6 && panels < 16 && LaunchSmallBytes<kForm, kRoom, kOwn, kWarps, 3, 2>(w, a, batch, workspace, y, half_y, stream)) return true;
    }
    if (panels >= 16 && LaunchSmallBytes<kForm, kRoom, kOwn, kWarps, 2 * kUnit>(w, a, batch, workspace, y, half_y, stream)) return true;
  }
  return LaunchSmallBytes<kForm, kRoom, kOwn, kWarps, kUnit>(w, a, batch, workspace, y, half_y, stream);
}

template <Form kForm, typename T>
bool LaunchForm(const PackedView& w, const T* a, int batch, void* y, bool half_y, void* workspace, cudaStream_t stream) {
  const bool own = OwnActivations<T>(batch, w.cols);
  switch (SmallRoom(batch, own)) {
    case 1:
      return Launch<kForm, 1, true>(w, a, batch, y, half_y, workspace, stream);
    case 4:
      return own ? Launch<kForm, 4, true>(w, a, batch, y, half_y, workspace, stream)
                 : Launch<kForm, 4, false>(w, a, batch, y, half_y, workspace, stream);
    case 8:
      return Launch<kForm, 8, false>(w, a, batch, y, half_y, workspace, stream);
    default:
      return Launch<kForm, 16, false>(w, a, batch, y, half_y, workspace, stream);
  }
}

template <typename T>
bool LaunchType(const PackedView& w, const T* a, int batch, void* y, bool half_y, void* workspace, cudaStream_t stream) {
  return ForForm(w.form, [&](auto form) { return LaunchForm<decltype(form)::value>(w, a, batch, y, half_y, workspace, stream); });
}

}  // namespace

size_t SmallWorkspace(const PackedView& w, int64_t batch) {
  return OwnActivations<float>(batch, w.cols) ? 0 : Prepared::Bytes(w, std::min<int64_t>(batch, kMaxSmallBatch));
}

bool SmallLinear(const PackedView& w, const void* a, bool half_a, int batch, void* y, bool half_y, void* workspace,
                 cudaStream_t stream) {
  return half_a ? LaunchType(w, static_cast<const __half*>(a), batch, y, half_y, workspace, stream)
                : LaunchType(w, static_cast<const float*>(a), batch, y, half_y, workspace, stream);
}

}  // namespace cosetq::cuda
