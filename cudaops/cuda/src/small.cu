#include "small.h"

#include "small.cuh"

namespace cosetq::cuda {
namespace {

template <Form kForm, int kRoom>
bool Launch(const PackedView& w, const void* a, bool half_a, int batch, void* y, bool half_y, void* workspace,
            cudaStream_t stream) {
  // As the workbench has it: many warps where registers allow, else more panels ahead of each.
  constexpr bool kMany = kRoom == 4 || kForm == Form::kOneByte;
  constexpr int kWarps = kMany ? 16 : 12, kDepth = (kMany ? 1 : 3) * (kForm == Form::kOneByte ? 2 : 1);
  return LaunchSmall<kForm, kRoom, kWarps, kDepth>(w, a, half_a, batch, workspace, y, half_y, stream);
}

template <Form kForm>
bool LaunchForm(const PackedView& w, const void* a, bool half_a, int batch, void* y, bool half_y, void* workspace,
                cudaStream_t stream) {
  switch (SmallRoom(batch)) {
    case 4:
      return Launch<kForm, 4>(w, a, half_a, batch, y, half_y, workspace, stream);
    case 8:
      return Launch<kForm, 8>(w, a, half_a, batch, y, half_y, workspace, stream);
    default:
      return Launch<kForm, 16>(w, a, half_a, batch, y, half_y, workspace, stream);
  }
}

}  // namespace

size_t SmallWorkspace(const PackedView& w, int64_t batch) {
  return FragmentBytes(w, std::min<int64_t>(batch, kMaxSmallBatch));
}

bool SmallLinear(const PackedView& w, const void* a, bool half_a, int batch, void* y, bool half_y, void* workspace,
                 cudaStream_t stream) {
  switch (w.form) {
    case Form::kOneByte:
      return LaunchForm<Form::kOneByte>(w, a, half_a, batch, y, half_y, workspace, stream);
    case Form::kTwoByte:
      return LaunchForm<Form::kTwoByte>(w, a, half_a, batch, y, half_y, workspace, stream);
    default:
      return LaunchForm<Form::kNibbleByte>(w, a, half_a, batch, y, half_y, workspace, stream);
  }
}

}  // namespace cosetq::cuda
