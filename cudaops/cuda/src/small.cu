#include "small.h"

#include "small.cuh"

namespace cosetq::cuda {
namespace {

template <Form kForm, int kRoom>
void Launch(const PackedView& w, const Fragments& a, int batch, void* y, bool half, cudaStream_t stream) {
  constexpr int kWarps = kRoom <= 4 ? 12 : 8;
  constexpr int kDepth = (kForm == Form::kOneByte ? 4 : 2) + (kRoom <= 4 ? 0 : 1);
  LaunchSmall<kForm, kRoom, kWarps, kDepth>(w, a, batch, y, half, stream);
}

template <Form kForm>
void LaunchForm(const PackedView& w, const Fragments& a, int batch, void* y, bool half, cudaStream_t stream) {
  switch (SmallRoom(batch)) {
    case 4:
      return Launch<kForm, 4>(w, a, batch, y, half, stream);
    case 8:
      return Launch<kForm, 8>(w, a, batch, y, half, stream);
    default:
      return Launch<kForm, 16>(w, a, batch, y, half, stream);
  }
}

}  // namespace

void SmallLinear(const PackedView& w, const Fragments& a, int batch, void* y, bool half, cudaStream_t stream) {
  switch (w.form) {
    case Form::kOneByte:
      return LaunchForm<Form::kOneByte>(w, a, batch, y, half, stream);
    case Form::kTwoByte:
      return LaunchForm<Form::kTwoByte>(w, a, batch, y, half, stream);
    default:
      return LaunchForm<Form::kNibbleByte>(w, a, batch, y, half, stream);
  }
}

}  // namespace cosetq::cuda
