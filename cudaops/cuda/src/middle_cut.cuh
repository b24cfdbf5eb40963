// The shared memory of the kernel of middle.cuh, and the cuts that fit.

#ifndef COSETQ_CUDA_MIDDLE_CUT_CUH_
#define COSETQ_CUDA_MIDDLE_CUT_CUH_

#include <algorithm>

#include "device.h"
#include "middle_panels.cuh"

namespace cosetq::cuda {
namespace {

// Shared memory of a block, by address from its begin.
template <Form kForm, int kRows, bool kDirect>
struct MiddleLayout {
  static constexpr int kColumns = 2 * kRows;  // of B: high bytes, then low ones
  static constexpr int kSlice = kColumns * kSliceBytes;
  static constexpr int kSegment = kBandRows * kRows * 4;
  using Panels = MiddlePanels<kForm, kDirect>;
  int operands, sums, panels, offsets, peaks, barriers, bytes;

  __host__ __device__ explicit MiddleLayout(const MiddleCut& cut) {
    const int chunks = cut.chunks.Most();
    operands = (TableWords(kForm) * 4 + 1023) / 1024 * 1024;  // [chunk][slice]
    sums = operands + MiddleSlices(kForm, chunks) * kSlice;          // [block that sends][segment][piece][lane], four each
    panels = sums + cut.Segments() * kSegment;
    offsets = panels + kMiddleWarps * Panels::kBytes;        // [chunk][column]: of all chunks before it, also behind the last one
    peaks = offsets + (chunks + 1) * kColumns * 4;
    barriers = peaks + kRows * 4;
    bytes = barriers + 16;
  }
};

// A pass of so many bands: the bytes that each block gets.
inline int SentBytes(const MiddleCut& cut, int bands, int rows) {
  const auto segments = [&](int chunks) {
    const BandCuts cuts = {bands, chunks};
    int count = 0;
    for (int group = 0; group < kMiddleGroups; ++group) {
      const int begin = cuts.Begin(group), end = cuts.Begin(group + 1);
      if (begin < end) count += (end - 1) / chunks - begin / chunks + 1;
    }
    return count;
  };
  const int all = cut.chunks.more * segments(cut.chunks.each + 1) + (cut.splits - cut.chunks.more) * segments(cut.chunks.each);
  return all * kBandRows * rows * 4 / cut.splits;
}

// Cuts the work for clusters of so many blocks, of which the device has room for so many; false if that does not fit.
template <Form kForm, int kRows, bool kDirect>
bool CutMiddle(const PackedView& w, int splits, int clusters, MiddleCut* cut) {
  if (splits > w.chunks || clusters == 0) return false;
  const int bands = (w.tiles + kBandTiles - 1) / kBandTiles;
  cut->splits = splits;
  cut->clusters = std::min(clusters, bands);
  cut->chunks = {w.chunks / splits, w.chunks % splits};
  cut->bands = {bands / cut->clusters, bands % cut->clusters};
  const int most = cut->bands.Most();
  int passes = 1;
  const auto fits = [&] {
    cut->together = (most + passes - 1) / passes;
    return MiddleLayout<kForm, kRows, kDirect>(*cut).bytes <= CurrentDevice().shared_limit;
  };
  while (!fits()) {
    if (++passes > most) return false;
  }
  const auto rest = [&](int all) { return (all - 1) % cut->together + 1; };
  cut->sent[0] = SentBytes(*cut, cut->together, kRows);
  cut->sent[1] = SentBytes(*cut, rest(most), kRows);
  cut->sent[2] = cut->bands.each > 0 ? SentBytes(*cut, rest(cut->bands.each), kRows) : 0;
  return true;
}

}  // namespace
}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_MIDDLE_CUT_CUH_
