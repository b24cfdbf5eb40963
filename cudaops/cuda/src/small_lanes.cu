#include "small_lanes.h"

#include "byte_operands.cuh"
#include "column_lanes.cuh"
#include "small_lanes.cuh"

namespace cosetq::cuda {
namespace {

// As the workbench has it. Short panels lanes fetch themselves, which begins sooner; long ones the copy engine, for which lanes do not
// have to wait.
template <Form kForm, typename Operands>
bool LaunchBytes(const PackedView& w, const __half* a, int batch, __half* y, cudaStream_t stream) {
  if constexpr (kForm == Form::kOneByte) {
    return LaunchSmallLanes<kForm, Operands, Plan<false, 3, 2, kInTurn, true>>(w, a, batch, y, stream);
  } else {
    if (!IsColumns(kForm) && HasFew(w)) return LaunchSmallLanes<kForm, Operands, Plan<true, 2, 1>>(w, a, batch, y, stream);
    const bool next = w.chunks > kLaneWarps;  // chunks for all warps
    constexpr FirstPanel kFirst = kForm == Form::kNibbleByte && Operands::kRows == 8 ? kAlong : kInPace;
    return (next && LaunchSmallLanes<kForm, Operands, Plan<true, 3, 1, kFirst, false, true>>(w, a, batch, y, stream)) ||
           LaunchSmallLanes<kForm, Operands, Plan<true, 3, 1, kFirst>>(w, a, batch, y, stream);
  }
}

template <Form kForm>
bool Launch(const PackedView& w, const __half* a, int batch, __half* y, cudaStream_t stream) {
  // Float16 as it is takes less time to make ready, and more to multiply: for a panel or two, or where warps have chunks to make ready twice.
  const bool as_it_is = batch > 4 && (WarpPanels(w) < 2 || (HasFew(w) && w.chunks > kLaneWarps));
  if constexpr (IsColumns(kForm)) {
    if (as_it_is && LaunchSmallLanes<kForm, ColumnLanes<kForm>, Plan<true, 3, 1, kInPace>>(w, a, batch, y, stream)) return true;
  } else {
    constexpr int kUnit = kForm == Form::kOneByte ? 2 : 1;  // whose panels are half as large
    if (batch > 8) {
      if (kUnit == 1 && !HasFew(w) && LaunchSmallLanes<kForm, HalfOperands<kForm, 16>, Plan<true, 2, 1>>(w, a, batch, y, stream)) return true;
      return LaunchSmallLanes<kForm, HalfOperands<kForm, 16>, Plan<false, 2 * kUnit, kUnit>>(w, a, batch, y, stream) ||
             LaunchSmallLanes<kForm, HalfOperands<kForm, 16>, Plan<false, kUnit>>(w, a, batch, y, stream);
    }
    if (as_it_is && kForm != Form::kOneByte) return LaunchSmallLanes<kForm, HalfOperands<kForm, 8>, Plan<false, 1, 1, kAhead>>(w, a, batch, y, stream);
  }
  return (batch <= 4 && LaunchBytes<kForm, ByteLanes<kForm, 4>>(w, a, batch, y, stream)) || LaunchBytes<kForm, ByteLanes<kForm, 8>>(w, a, batch, y, stream);
}

}  // namespace

bool TakesLanes(const PackedView& w, const void* a, int batch) {
  if (w.cols % (kGroup * kPanelSteps) != 0 || reinterpret_cast<uintptr_t>(a) % 16 != 0) return false;
  // Two rows of single columns every block makes ready by itself, if they are not long.
  if (IsColumns(w.form)) return batch > (OwnActivations<float>(2, w.cols) ? 2 : 1) && batch <= 8;
  if (HasMany(w)) return batch > 2 && batch <= 8;
  return batch > (w.form == Form::kTwoByte && !HasFew(w) ? 2 : 1);
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
