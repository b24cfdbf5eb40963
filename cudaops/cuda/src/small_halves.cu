#include "small_halves.h"

#include "small_halves.cuh"

namespace cosetq::cuda {
namespace {

// The panels of a warp.
int64_t WarpPanels(const PackedView& w) { return static_cast<int64_t>(w.tiles) * w.chunks / w.shares / 16; }

// As the workbench has it. Lanes that fetch panels themselves begin sooner, and with few panels that matters more than the time they wait
// for a place in the queue of loads.
template <Form kForm, int kRows>
bool Launch(const PackedView& w, const __half* a, int batch, __half* y, cudaStream_t stream) {
  constexpr int kUnit = kForm == Form::kOneByte ? 2 : 1;  // whose panels are half as large
  if constexpr (kForm != Form::kOneByte) {
    if (WarpPanels(w) >= 6 && LaunchSmallHalves<kForm, kRows, Plan<true, kRows == 8 ? 3 : 2, kRows == 8 ? 2 : 1>>(w, a, batch, y, stream)) return true;
  }
  // With more rows registers have no room for a panel that is decoded ahead.
  if (kRows > 8 && LaunchSmallHalves<kForm, kRows, Plan<false, 2 * kUnit, kUnit>>(w, a, batch, y, stream)) return true;
  return LaunchSmallHalves<kForm, kRows, Plan<false, kUnit, kUnit, kRows == 8>>(w, a, batch, y, stream);
}

}  // namespace

bool TakesHalves(const PackedView& w, const void* a, int batch) {
  if (w.cols % (kGroup * kPanelSteps) != 0 || reinterpret_cast<uintptr_t>(a) % 16 != 0) return false;
  const int64_t panels = WarpPanels(w);
  const bool four_bits = w.form == Form::kTwoByte;
  if (panels >= 16) return four_bits && batch > 2 && batch <= 8;
  return batch > (panels >= 6 ? 4 : four_bits ? 1 : 2);
}

bool SmallHalvesLinear(const PackedView& w, const void* a, int batch, void* y, cudaStream_t stream) {
  const auto* from = static_cast<const __half*>(a);
  auto* to = static_cast<__half*>(y);
  switch (w.form) {
    case Form::kOneByte:
      return batch <= 8 ? Launch<Form::kOneByte, 8>(w, from, batch, to, stream) : Launch<Form::kOneByte, 16>(w, from, batch, to, stream);
    case Form::kTwoByte:
      return batch <= 8 ? Launch<Form::kTwoByte, 8>(w, from, batch, to, stream) : Launch<Form::kTwoByte, 16>(w, from, batch, to, stream);
    default:
      return batch <= 8 ? Launch<Form::kNibbleByte, 8>(w, from, batch, to, stream) : Launch<Form::kNibbleByte, 16>(w, from, batch, to, stream);
  }
}

}  // namespace cosetq::cuda
