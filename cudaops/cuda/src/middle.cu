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

using LaunchCut = void (*)(const PackedView&, const __half*, int, __half*, const MiddleCut&, cudaStream_t);

// A cut, and the kernel that takes least for it, of those that have been offered.
struct Choice {
  int cost = 0;
  MiddleCut cut = {};
  LaunchCut launch = nullptr;  // where nothing fits
  MiddleKernel kernel = kNoMiddle;

  template <Form kForm, int kRows, bool kDirect>
  void Offer(const PackedView& w) {
    static const std::array<int, kSplits.size()> most = MostClusters<kForm, kRows, kDirect>(kSplits);
    for (size_t i = 0; i < kSplits.size(); ++i) {
      MiddleCut other;
      if (!CutMiddle<kForm, kRows, kDirect>(w, kSplits[i], most[i], &other)) continue;
      if (launch != nullptr && Cost(other) >= cost) continue;
      cost = Cost(other);
      cut = other;
      launch = LaunchMiddle<kForm, kRows, kDirect>;
      kernel = kDirect ? kDirectMiddle : kStagedMiddle;
    }
  }
};

template <Form kForm, int kRows>
Choice Choose(const PackedView& w) {
  Choice choice;
  if constexpr (kRows <= 32) choice.Offer<kForm, kRows, false>(w);
  // Where that leaves room for a cheaper cut, or for any: with 64 rows there is none for panels.
  if constexpr (!IsColumns(kForm)) choice.Offer<kForm, kRows, true>(w);
  return choice;
}

// Multiplies by as many rows at a time as fit, but all of more than 32; none, and nothing done, if not even the fewest do.
template <Form kForm>
MiddleKernel Multiply(const PackedView& w, const __half* a, int batch, __half* y, cudaStream_t stream) {
  Choice choice;
  int most = batch > 32 ? 64 : 32;
  if (batch > 16) choice = batch > 32 ? Choose<kForm, 64>(w) : Choose<kForm, 32>(w);
  if (choice.launch == nullptr && batch <= 32) {
    most = 16;
    choice = Choose<kForm, 16>(w);
  }
  if (choice.launch == nullptr) return kNoMiddle;
  for (int first = 0; first < batch; first += most)
    choice.launch(w, a + static_cast<int64_t>(first) * w.cols, std::min(most, batch - first), y + static_cast<int64_t>(first) * w.rows, choice.cut, stream);
  return choice.kernel;
}

// Whether warps of the kernel of small_lanes.h would have to make chunk after chunk ready, some more often than others, or each for few tiles.
bool LanesMakeManyChunks(const PackedView& w) {
  if (w.chunks <= kLaneWarps) return false;
  const bool few_tiles = w.tiles <= 3 * w.shares;
  if (w.chunks % kLaneWarps != 0) return few_tiles || !HasMany(w);
  return few_tiles && (w.tiles > w.shares || w.chunks > 2 * kLaneWarps);
}

}  // namespace

bool TakesMiddle(const PackedView& w, const void* a, int64_t batch) {
  if (!CurrentDevice().hopper || batch < kLeastBatch || batch > kMaxMiddleBatch) return false;
  if (w.cols % (kGroup * kPanelSteps) != 0 || reinterpret_cast<uintptr_t>(a) % 16 != 0) return false;
  // What takes less time with the kernels of small.h, as measured: small weights, unless there are two calls of those, and few rows, for
  // most weights. And with those for many rows: more than 32, unless the weight is small.
  const int64_t panels = int64_t{w.tiles} * w.chunks;
  if (w.chunks < kSplits[0] || (batch > 32 && (IsColumns(w.form) || panels >= 1 << 11))) return false;
  return (batch > 16 || panels >= 1 << 10) && (batch >= kMinMiddleBatch || LanesMakeManyChunks(w));
}

MiddleKernel MiddleLinear(const PackedView& w, const void* a, int batch, void* y, cudaStream_t stream) {
  const auto* from = static_cast<const __half*>(a);
  auto* to = static_cast<__half*>(y);
  switch (w.form) {
    case Form::kOneByte:
      return Multiply<Form::kOneByte>(w, from, batch, to, stream);
    case Form::kTwoByte:
      return Multiply<Form::kTwoByte>(w, from, batch, to, stream);
    case Form::kNibbles:
      return Multiply<Form::kNibbles>(w, from, batch, to, stream);
    case Form::kTwoBits:
      return Multiply<Form::kTwoBits>(w, from, batch, to, stream);
    default:
      return Multiply<Form::kNibbleByte>(w, from, batch, to, stream);
  }
}

}  // namespace cosetq::cuda
