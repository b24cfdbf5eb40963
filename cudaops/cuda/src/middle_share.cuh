// How the kernel of middle.cuh cuts its work, among clusters and blocks and in passes.

#ifndef COSETQ_CUDA_MIDDLE_SHARE_CUH_
#define COSETQ_CUDA_MIDDLE_SHARE_CUH_

#include "slice_ring.cuh"
#include "views.h"

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

}  // namespace
}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_MIDDLE_SHARE_CUH_
