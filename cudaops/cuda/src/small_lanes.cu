#include "small_lanes.h"

#include "byte_operands.cuh"
#include "column_lanes.cuh"
#include "row_lanes.cuh"
#include "small_lanes.cuh"

namespace cosetq::cuda {
namespace {

// As the workbench has it. Until its activations are there a warp fetches one panel and decodes it; where memory is what warps wait for, one
// after the other. With chunks for all warps the next one is copied ahead of time, unless a chunk has so many panels that it matters less.
template <Form kForm, typename Operands>
bool LaunchBytes(const PackedView& w, const __half* a, int batch, __half* y, cudaStream_t stream) {
  const auto launch = [&](auto plan) { return LaunchSmallLanes<kForm, Operands, decltype(plan)>(w, a, batch, y, stream); };
  constexpr bool kOneLevel = PanelVectors(kForm) == 2, kColumns = IsColumns(kForm);
  const bool next = w.chunks > kLaneWarps && (kForm != Form::kNibbleByte || w.tiles < 8 * w.shares);
  if constexpr (kOneLevel) {
    return launch(Plan<true, 3, 1, kAlong>());
  } else {
    if constexpr (kColumns && Operands::kRows <= 2) {
      if (HasMany(w)) return launch(Plan<true, 4, 1, kInPace>());
    }
    if constexpr (kColumns || (kForm == Form::kTwoByte && Operands::kRows <= 4)) {
      const bool in_pace = kColumns ? !HasFew(w) : HasMany(w);
      if (in_pace) return (next && launch(Plan<true, 3, 1, kInPace, true>())) || launch(Plan<true, 3, 1, kInPace>());
    }
    return (next && launch(Plan<true, 2, 1, kAlong, true>())) || launch(Plan<true, 2, 1, kAlong>());
  }
}

template <Form kForm>
bool Launch(const PackedView& w, const __half* a, int batch, __half* y, cudaStream_t stream) {
  if (batch == 1) return LaunchBytes<kForm, RowLanes<kForm, 1>>(w, a, batch, y, stream);
  if (batch == 2) return LaunchBytes<kForm, RowLanes<kForm, 2>>(w, a, batch, y, stream);
  // Float16 as it is takes less time to make ready, and more to multiply: for a panel or two, or where warps have chunks to make ready twice.
  const bool as_it_is = batch > 4 && PanelVectors(kForm) > 2 && (WarpPanels(w) < 2 || (HasFew(w) && w.chunks > kLaneWarps));
  if constexpr (IsColumns(kForm)) {
    if constexpr (PanelVectors(kForm) > 2) {
      if (as_it_is && LaunchSmallLanes<kForm, ColumnLanes<kForm>, Plan<true, 3, 1, kInPace>>(w, a, batch, y, stream)) return true;
    }
  } else {
    constexpr int kUnit = kForm == Form::kOneByte ? 2 : 1;  // whose panels are half as large
    if (batch > 8) {
      if (kUnit == 1 && !HasFew(w) && LaunchSmallLanes<kForm, HalfOperands<kForm, 16>, Plan<true, 2, 1>>(w, a, batch, y, stream)) return true;
      return LaunchSmallLanes<kForm, HalfOperands<kForm, 16>, Plan<false, 2 * kUnit, kUnit>>(w, a, batch, y, stream) ||
             LaunchSmallLanes<kForm, HalfOperands<kForm, 16>, Plan<false, kUnit>>(w, a, batch, y, stream);
    }
    if constexpr (kUnit == 1) {
      if (as_it_is) return LaunchSmallLanes<kForm, HalfOperands<kForm, 8>, Plan<false, 1, 1, kAhead>>(w, a, batch, y, stream);
    }
  }
  return (batch <= 4 && LaunchBytes<kForm, ByteLanes<kForm, 4>>(w, a, batch, y, stream)) || LaunchBytes<kForm, ByteLanes<kForm, 8>>(w, a, batch, y, stream);
}

}  // namespace

bool TakesLanes(const PackedView& w, const void* a, int batch) {
  if (w.cols % (kGroup * kPanelSteps) != 0 || reinterpret_cast<uintptr_t>(a) % 16 != 0) return false;
  // One row with several chunks for a warp a block makes ready once, unless there are look-ups of two levels, which take longer than that.
  const int chunks = IsColumns(w.form) ? kLaneWarps : w.form == Form::kOneByte ? 2 * kLaneWarps : w.chunks;
  if (batch == 1 && w.chunks > chunks && OwnActivations<__half>(batch, w.cols)) return false;
  return batch <= 8 || !(IsColumns(w.form) || HasMany(w));
}

bool SmallLanesLinear(const PackedView& w, const void* a, int batch, void* y, cudaStream_t stream) {
  const auto* from = static_cast<const __half*>(a);
  auto* to = static_cast<__half*>(y);
  switch (w.form) {
    case Form::kOneByte:
      return Launch<Form::kOneByte>(w, from, batch, to, stream);
    case Form::kTwoByte:
      return Launch<Form::kTwoByte>(w, from, batch, to, stream);
    case Form::kNibbles:
      return Launch<Form::kNibbles>(w, from, batch, to, stream);
    case Form::kTwoBits:
      return Launch<Form::kTwoBits>(w, from, batch, to, stream);
    default:
      return Launch<Form::kNibbleByte>(w, from, batch, to, stream);
  }
}

}  // namespace cosetq::cuda
