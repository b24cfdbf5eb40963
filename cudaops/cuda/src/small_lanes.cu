#include "small_lanes.h"

#include "column_lanes.cuh"
#include "small_lanes_bytes.cuh"

namespace cosetq::cuda {
namespace {

template <Form kForm>
bool Launch(const PackedView& w, const __half* a, int batch, void* y, cudaStream_t stream) {
  if (batch <= 2) return LaunchFew<kForm>(w, a, batch, y, true, stream);
  // Float16 as it is takes less time to make ready, and more to multiply: for a panel or two, or where warps have chunks to make ready twice.
  const bool as_it_is = batch > 4 && PanelVectors(kForm) > 2 && (WarpPanels(w) < 2 || (HasFew(w) && w.chunks > kLaneWarps));
  if constexpr (IsColumns(kForm)) {
    if constexpr (PanelVectors(kForm) > 2) {
      if (as_it_is && LaunchSmallLanes<kForm, ColumnLanes<kForm>, Plan<true, 3, 1, kInPace>>(w, a, batch, y, true, stream)) return true;
    }
  } else {
    constexpr int kUnit = kForm == Form::kOneByte ? 2 : 1;  // whose panels are half as large
    if (batch > 8) {
      if (kUnit == 1 && !HasFew(w) && LaunchSmallLanes<kForm, HalfOperands<kForm, 16>, Plan<true, 2, 1>>(w, a, batch, y, true, stream)) return true;
      return LaunchSmallLanes<kForm, HalfOperands<kForm, 16>, Plan<false, 2 * kUnit, kUnit>>(w, a, batch, y, true, stream) ||
             LaunchSmallLanes<kForm, HalfOperands<kForm, 16>, Plan<false, kUnit>>(w, a, batch, y, true, stream);
    }
    if constexpr (kUnit == 1) {
      if (as_it_is) return LaunchSmallLanes<kForm, HalfOperands<kForm, 8>, Plan<false, 1, 1, kAhead>>(w, a, batch, y, true, stream);
    }
  }
  return (batch <= 4 && LaunchFew<kForm>(w, a, batch, y, true, stream)) || LaunchBytes<kForm, ByteLanes<kForm, 8, __half>>(w, a, batch, y, true, stream);
}

}  // namespace

bool TakesLanes(const PackedView& w, const void* a, bool half, int batch) {
  if (w.cols % (kGroup * kPanelSteps) != 0 || reinterpret_cast<uintptr_t>(a) % 16 != 0) return false;
  // One row with several chunks for a warp a block makes ready once, unless there are look-ups of two levels, which take longer than that.
  const int chunks = IsColumns(w.form) ? kLaneWarps : w.form == Form::kOneByte ? 2 * kLaneWarps : w.chunks;
  if (batch == 1 && w.chunks > chunks && (half ? OwnActivations<__half>(batch, w.cols) : OwnActivations<float>(batch, w.cols))) return false;
  if (!half) return batch <= 2 || (batch <= 4 && !HasMany(w));  // of long rows and many panels blocks make them ready sooner
  return batch <= 8 || !(IsColumns(w.form) || HasMany(w));
}

bool SmallLanesHalves(const PackedView& w, const void* a, int batch, void* y, cudaStream_t stream) {
  return ForForm(w.form, [&](auto form) { return Launch<decltype(form)::value>(w, static_cast<const __half*>(a), batch, y, stream); });
}

}  // namespace cosetq::cuda
