#include "small.h"

#include "small.cuh"

namespace cosetq::cuda {
namespace {

template <Form kForm, int kRoom>
bool Launch(const PackedView& w, const void* a, bool half_a, int batch, void* y, bool half_y, cudaStream_t stream) {
  constexpr int kWarps = 16;
  constexpr int kDepth = kForm == Form::kOneByte ? 2 : 1;
  constexpr int kSplits = 2;
  return LaunchSmall<kForm, kRoom, kWarps, kDepth>(w, a, half_a, batch, y, half_y, kSplits, stream);
}

template <Form kForm>
bool LaunchForm(const PackedView& w, const void* a, bool half_a, int batch, void* y, bool half_y, cudaStream_t stream) {
  switch (SmallRoom(batch)) {
    case 4:
      return Launch<kForm, 4>(w, a, half_a, batch, y, half_y, stream);
    case 8:
      return Launch<kForm, 8>(w, a, half_a, batch, y, half_y, stream);
    default:
      return Launch<kForm, 16>(w, a, half_a, batch, y, half_y, stream);
  }
}

}  // namespace

bool SmallLinear(const PackedView& w, const void* a, bool half_a, int batch, void* y, bool half_y, cudaStream_t stream) {
  switch (w.form) {
    case Form::kOneByte:
      return LaunchForm<Form::kOneByte>(w, a, half_a, batch, y, half_y, stream);
    case Form::kTwoByte:
      return LaunchForm<Form::kTwoByte>(w, a, half_a, batch, y, half_y, stream);
    default:
      return LaunchForm<Form::kNibbleByte>(w, a, half_a, batch, y, half_y, stream);
  }
}

}  // namespace cosetq::cuda
