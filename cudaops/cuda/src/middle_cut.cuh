// How the kernel of middle.cuh cuts its work, among clusters and blocks and in passes, and its shared memory.

#ifndef COSETQ_CUDA_MIDDLE_CUT_CUH_
#define COSETQ_CUDA_MIDDLE_CUT_CUH_

#include <algorithm>

#include "device.h"
#include "panel_ring.cuh"
#include "slice_ring.cuh"

namespace cosetq::cuda {
namespace {

constexpr int kMiddleGroups = 4, kMiddleWarps = 4 * kMiddleGroups, kMiddleThreads = 32 * kMiddleWarps;
constexpr int kBandTiles = 4, kBandRows = kBandTiles * kPanelRows;
constexpr int kChunkSlices = kPanelSteps / kSliceUnits;

// Slices of so many chunks: those of all their steps, then, where something is missing of the centre, what goes with the gains, two units of a
// chunk.
__host__ __device__ constexpr int MiddleSlices(Form form, int chunks) { return chunks * kChunkSlices + (IsColumns(form) ? 0 : (chunks + 1) / 2); }

// A whole cut as evenly as may be: the first `more` parts have one more than `each`.
struct EvenCut {
  int each, more;

  __host__ __device__ int Begin(int part) const { return part * each + (part < more ? part : more); }
  __host__ __device__ int Size(int part) const { return each + (part < more); }
  __host__ __device__ int Most() const { return each + (more > 0); }
};

// How the work is cut.
struct MiddleCut {
  int splits, clusters;  // blocks of a cluster; clusters
  EvenCut chunks;        // of the blocks of a cluster
  EvenCut bands;         // of the clusters
  int together;          // bands of a pass
  int sent[3];           // bytes that a block gets in a pass: in one of so many bands, in the last one of a cluster with Most bands and with fewer

  __host__ __device__ int Segments() const { return together + kMiddleGroups - 1; }
};

// Items of a pass are its bands times a block's chunks, band after band. Each warp group has an equal share of them; what it has of a band
// is a segment. Segments are numbered by band plus group.
struct BandCuts {
  int bands, chunks;

  __host__ __device__ int Begin(int group) const { return bands * chunks * group / kMiddleGroups; }
  // The group that has an item, and the band of one. Items are far less than 2^16.
  __device__ int GroupOf(int item) const {
    return static_cast<int>(__fdividef(static_cast<float>(kMiddleGroups * item + kMiddleGroups - 1) + 0.5f, static_cast<float>(bands * chunks)));
  }
  // The groups that have a segment of a band, a bit each. With fewer items than groups some have none.
  __device__ uint32_t GroupsOf(int band) const {
    static_assert(kMiddleGroups == 4);
    constexpr uint32_t kBusy = 0xfea8;  // four bits for 1, 2, 3 and more items
    const uint32_t busy = kBusy >> (4 * (min(bands * chunks, 4) - 1));
    const uint32_t until = (2u << GroupOf((band + 1) * chunks - 1)) - 1, before = (1u << GroupOf(band * chunks)) - 1;
    return busy & until & ~before;
  }
  __device__ int BandOf(int item) const { return static_cast<int>(__fdividef(static_cast<float>(item) + 0.5f, static_cast<float>(chunks))); }
};

// What a block has to do.
struct MiddleShare {
  int first_band, last_band, together, first_chunk, chunks;

  __device__ MiddleShare(const MiddleCut& cut, int cluster, int rank)
      : first_band(cut.bands.Begin(cluster)),
        last_band(first_band + cut.bands.Size(cluster)),
        together(cut.together),
        first_chunk(cut.chunks.Begin(rank)),
        chunks(cut.chunks.Size(rank)) {}
  __device__ int Together(int band) const { return min(together, last_band - band); }
  __device__ BandCuts Pass(int band) const { return {Together(band), chunks}; }
};

// The panels of a warp in the order in which it takes them.
class BandPanels {
 public:
  __device__ __forceinline__ BandPanels(const PackedView& w, const MiddleShare& share, int warp)
      : w_(w), share_(share), group_(warp / 4), tile_(warp % 4), pass_(share.first_band) {
    BeginPass();
  }

  __device__ __forceinline__ bool Next(const unsigned char*& panel) {
    if (left_ == 0 && !NextBand()) return false;
    --left_;
    panel = at_;
    at_ += stride_;
    return true;
  }

 private:
  __device__ __forceinline__ void BeginPass() {
    const BandCuts cuts = share_.Pass(pass_);
    const int item = cuts.Begin(group_), band = cuts.BandOf(item);
    rest_ = cuts.Begin(group_ + 1) - item;
    band_ = pass_ + band;
    chunk_ = item - band * share_.chunks;
  }
  __device__ __forceinline__ bool NextBand() {
    while (rest_ == 0) {
      if (pass_ + share_.together >= share_.last_band) return false;
      pass_ += share_.together;
      BeginPass();
    }
    left_ = min(share_.chunks - chunk_, rest_);
    // Warps past the last tile multiply another's weights, since all of a warp group must come along.
    const TilePanels panels(w_, min(band_ * kBandTiles + tile_, w_.tiles - 1));
    at_ = panels[share_.first_chunk + chunk_];
    stride_ = panels.stride;
    rest_ -= left_;
    ++band_;
    chunk_ = 0;
    return true;
  }

  const PackedView& w_;
  const MiddleShare& share_;
  int group_, tile_, pass_;
  int rest_, band_, chunk_;    // of the pass: items that are not begun, and the first one of them
  int left_ = 0, stride_ = 0;  // of the band begun
  const unsigned char* at_ = nullptr;
};

// Panels of a warp's ring, and how many of them are fetched before the activations are there: requests for weights delay those for the
// activations, which all products wait for.
constexpr int MiddleDepth(Form form) { return PanelVectors(form) == 2 ? 4 : 2; }
constexpr int MiddleEarly(Form form) { return MiddleDepth(form) / 2; }

// Shared memory of a block, by address from its begin.
template <Form kForm, int kRows>
struct MiddleLayout {
  static constexpr int kColumns = 2 * kRows;  // of B: high bytes, then low ones
  static constexpr int kSlice = kColumns * kSliceBytes;
  static constexpr int kSegment = kBandRows * kRows * 4;
  using Ring = PanelRing<kForm, MiddleDepth(kForm), false, BandPanels>;
  int operands, sums, rings, offsets, peaks, barriers, bytes;

  __host__ __device__ explicit MiddleLayout(const MiddleCut& cut) {
    const int chunks = cut.chunks.Most();
    operands = (TableWords(kForm) * 4 + 1023) / 1024 * 1024;  // [chunk][slice]
    sums = operands + MiddleSlices(kForm, chunks) * kSlice;          // [block that sends][segment][piece][lane], four each
    rings = sums + cut.Segments() * kSegment;
    offsets = rings + kMiddleWarps * Ring::kBytes;            // [chunk][column]: of all chunks before it, also behind the last one
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
template <Form kForm, int kRows>
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
    return MiddleLayout<kForm, kRows>(*cut).bytes <= CurrentDevice().shared_limit;
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
