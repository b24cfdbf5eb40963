#include "wide.cuh"

namespace cosetq::cuda {
namespace {

template <Form kForm>
void Launch(const PackedView& w, const WideActivations& x, int columns, int batch, void* y, bool half_y, cudaStream_t stream) {
  columns == 256 ? LaunchWide<kForm, false, 256>(w, x, batch, y, half_y, stream)
                 : LaunchWide<kForm, false, 128>(w, x, batch, y, half_y, stream);
}

}  // namespace

void WideHalves(const PackedView& w, const WideActivations& x, int columns, int batch, void* y, bool half_y, cudaStream_t stream) {
  switch (w.form) {
    case Form::kOneByte:
      return Launch<Form::kOneByte>(w, x, columns, batch, y, half_y, stream);
    case Form::kTwoByte:
      return Launch<Form::kTwoByte>(w, x, columns, batch, y, half_y, stream);
    default:
      return Launch<Form::kNibbleByte>(w, x, columns, batch, y, half_y, stream);
  }
}

}  // namespace cosetq::cuda
