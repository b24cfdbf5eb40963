// How the kernel of small_lanes.cuh is launched for activations that become bytes.

#ifndef COSETQ_CUDA_SMALL_LANES_BYTES_CUH_
#define COSETQ_CUDA_SMALL_LANES_BYTES_CUH_

#include "row_lanes.cuh"
#include "small_lanes.cuh"

namespace cosetq::cuda {
namespace {

// As the workbench has it. Until its activations are there a warp fetches one panel and decodes it; where memory is what warps wait for, one
// after the other. With chunks for all warps the next one is copied ahead of time, unless a chunk has so many panels that it matters less.
template <Form kForm, typename Operands>
bool LaunchBytes(const PackedView& w, const typename Operands::Number* a, int batch, void* y, bool half_y, cudaStream_t stream) {
  const auto launch = [&](auto plan) { return LaunchSmallLanes<kForm, Operands, decltype(plan)>(w, a, batch, y, half_y, stream); };
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

// For up to four rows.
template <Form kForm, typename T>
bool LaunchFew(const PackedView& w, const T* a, int batch, void* y, bool half_y, cudaStream_t stream) {
  if (batch == 1) return LaunchBytes<kForm, RowLanes<kForm, 1, T>>(w, a, batch, y, half_y, stream);
  if (batch == 2) return LaunchBytes<kForm, RowLanes<kForm, 2, T>>(w, a, batch, y, half_y, stream);
  return LaunchBytes<kForm, ByteLanes<kForm, 4, T>>(w, a, batch, y, half_y, stream);
}

}  // namespace
}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_SMALL_LANES_BYTES_CUH_
