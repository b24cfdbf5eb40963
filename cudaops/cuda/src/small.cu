#include "small.h"

#include <cuda_fp16.h>

#include "small.cuh"

namespace cosetq::cuda {
namespace {

// As the workbench has it: many warps where registers allow; more panels ahead of each only where there are many, or where 16 rows
// leave room for fewer warps; and the first panel decoded ahead where no kernel prepares the activations meanwhile.
template <Form kForm, int kRoom, typename T>
bool Launch(const PackedView& w, const T* a, int batch, void* y, bool half_y, void* workspace, cudaStream_t stream) {
  constexpr int kWarps = kRoom == 16 ? 12 : 16, kUnit = kForm == Form::kOneByte ? 2 : 1;  // whose panels are half as large
  constexpr bool kAhead = kRoom == 1;
  const int64_t panels = static_cast<int64_t>(w.tiles) * w.chunks / w.shares / kWarps;
  const bool many = kRoom == 16 || (kRoom == 1 && kUnit == 1 && panels >= 16);
  return (many && LaunchSmall<kForm, kRoom, kWarps, 2 * kUnit, kAhead>(w, a, batch, workspace, y, half_y, stream)) ||
         LaunchSmall<kForm, kRoom, kWarps, kUnit, kAhead>(w, a, batch, workspace, y, half_y, stream);
}

template <Form kForm, typename T>
bool LaunchForm(const PackedView& w, const T* a, int batch, void* y, bool half_y, void* workspace, cudaStream_t stream) {
  switch (SmallRoom(batch)) {
    case 1:
      return Launch<kForm, 1>(w, a, batch, y, half_y, workspace, stream);
    case 4:
      return Launch<kForm, 4>(w, a, batch, y, half_y, workspace, stream);
    case 8:
      return Launch<kForm, 8>(w, a, batch, y, half_y, workspace, stream);
    default:
      return Launch<kForm, 16>(w, a, batch, y, half_y, workspace, stream);
  }
}

template <typename T>
bool LaunchType(const PackedView& w, const T* a, int batch, void* y, bool half_y, void* workspace, cudaStream_t stream) {
  switch (w.form) {
    case Form::kOneByte:
      return LaunchForm<Form::kOneByte>(w, a, batch, y, half_y, workspace, stream);
    case Form::kTwoByte:
      return LaunchForm<Form::kTwoByte>(w, a, batch, y, half_y, workspace, stream);
    default:
      return LaunchForm<Form::kNibbleByte>(w, a, batch, y, half_y, workspace, stream);
  }
}

}  // namespace

size_t SmallWorkspace(const PackedView& w, int64_t batch) {
  return batch <= 1 ? 0 : Prepared::Bytes(w, std::min<int64_t>(batch, kMaxSmallBatch));
}

bool SmallLinear(const PackedView& w, const void* a, bool half_a, int batch, void* y, bool half_y, void* workspace,
                 cudaStream_t stream) {
  return half_a ? LaunchType(w, static_cast<const __half*>(a), batch, y, half_y, workspace, stream)
                : LaunchType(w, static_cast<const float*>(a), batch, y, half_y, workspace, stream);
}

}  // namespace cosetq::cuda
