#include "middle.h"

#include <array>

#include "middle.cuh"
#include "small_lanes.h"

namespace cosetq::cuda {
namespace {

constexpr int kLeastBatch = 5, kMinMiddleBatch = 9;  // of some weights, and of any
constexpr std::array<int, 3> kSplits = {2, 4, 8};

// What a block takes by a count, in quarters of its time for a chunk of a band.
int Cost(const MiddleCut& cut) {
  constexpr int kItem = 4, kChunk = 10, kSegment = 5, kPass = 24;  // to fetch activations, to send sums, to wait for those of others
  const int bands = cut.bands.Most(), chunks = cut.chunks.Most(), passes = (bands + cut.together - 1) / cut.together;
  const int segments = bands + passes * (kMiddleGroups - 1);
  return kItem * bands * chunks + kChunk * chunks + kSegment * segments + kPass * passes;
}

using LaunchCut = void (*)(const PackedView&, const void*, int, void*, bool, const MiddleCut&, cudaStream_t);

// A cut, and the kernel that takes least for it, of those that have been offered.
struct Choice {
  int cost = 0;
  MiddleCut cut = {};
  LaunchCut launch = nullptr;  // where nothing fits
  MiddleKernel kernel = kNoMiddle;

  template <Form kForm, int kRows, typename T, bool kDirect>
  void Offer(const PackedView& w) {
    static const std::array<int, kSplits.size()> most = MostClusters<kForm, kRows, T, kDirect>(kSplits);
    for (size_t i = 0; i < kSplits.size(); ++i) {
      MiddleCut other;
      if (!CutMiddle<kForm, kRows, kDirect>(w, kSplits[i], most[i], &other)) continue;
      if (launch != nullptr && Cost(other) >= cost) continue;
      cost = Cost(other);
      cut = other;
      launch = LaunchMiddle<kForm, kRows, T, kDirect>;
      kernel = kDirect ? kDirectMiddle : kStagedMiddle;
    }
  }
};

template <Form kForm, int kRows, typename T>
Choice Choose(const PackedView& w) {
  Choice choice;
  if constexpr (kRows <= 32) choice.Offer<kForm, kRows, T, false>(w);
  // Where that leaves room for a cheaper cut, or for any: with 64 rows there is none for panels.
  if constexpr (!IsColumns(kForm)) choice.Offer<kForm, kRows, T, true>(w);
  return choice;
}

// Multiplies by as many rows at a time as fit, but all of more than 32; none, and nothing done, if not even the fewest do.
template <Form kForm, typename T>
MiddleKernel Multiply(const PackedView& w, const T* a, int batch, void* y, bool half_y, cudaStream_t stream) {
  Choice choice;
  int most = batch > 32 ? 64 : 32;
  if (batch > 16) choice = batch > 32 ? Choose<kForm, 64, T>(w) : Choose<kForm, 32, T>(w);
  if (choice.launch == nullptr && batch <= 32) {
    most = 16;
    choice = Choose<kForm, 16, T>(w);
  }
  if (choice.launch == nullptr) return kNoMiddle;
  for (int first = 0; first < batch; first += most) {
    void* const to = static_cast<char*>(y) + static_cast<int64_t>(first) * w.rows * (half_y ? 2 : 4);
    choice.launch(w, a + static_cast<int64_t>(first) * w.cols, std::min(most, batch - first), to, half_y, choice.cut, stream);
  }
  return choice.kernel;
}

template <typename T>
MiddleKernel MultiplyType(const PackedView& w, const T* a, int batch, void* y, bool half_y, cudaStream_t stream) {
  return ForForm(w.form, [&](auto form) { return Multiply<decltype(form)::value>(w, a, batch, y, half_y, stream); });
}

// Whether warps of the kernel of small_lanes.h would have to make chunk after chunk ready, some more often than others, or each for few tiles.
bool LanesMakeManyChunks(const PackedView& w) {
  if (w.chunks <= kLaneWarps) return false;
  const bool few_tiles = w.tiles <= 3 * w.shares;
  if (w.chunks % kLaneWarps != 0) return few_tiles || !HasMany(w);
  return few_tiles && (w.tiles > w.shares || w.chunks > 2 * kLaneWarps);
}

}  // namespace

bool TakesMiddle(const PackedView& w, const void* a, bool half_a, int64_t batch) {
  if (!CurrentDevice().hopper || batch < kLeastBatch || batch > kMaxMiddleBatch) return false;
  if (w.cols % (kGroup * kPanelSteps) != 0 || reinterpret_cast<uintptr_t>(a) % 16 != 0) return false;
  // What takes less time with the kernels of small.h, as measured: small weights, unless there are two calls of those, and few rows, for
  // most weights. And with those for many rows: more than 32, unless the weight is small.
  const int64_t panels = int64_t{w.tiles} * w.chunks;
  if (w.chunks < kSplits[0] || (batch > 32 && (IsColumns(w.form) || panels >= 1 << 11))) return false;
  // Rows of floats another kernel would make ready first.
  const bool few = half_a ? LanesMakeManyChunks(w) : !HasMany(w);
  return (batch > 16 || panels >= 1 << 10) && (batch >= kMinMiddleBatch || few);
}

MiddleKernel MiddleLinear(const PackedView& w, const void* a, bool half_a, int batch, void* y, bool half_y, cudaStream_t stream) {
  return half_a ? MultiplyType(w, static_cast<const __half*>(a), batch, y, half_y, stream)
                : MultiplyType(w, static_cast<const float*>(a), batch, y, half_y, stream);
}

}  // namespace cosetq::cuda
