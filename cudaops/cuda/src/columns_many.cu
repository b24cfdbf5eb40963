#include "columns_many.h"

#include <algorithm>

#include "columns_many.cuh"
#include "row_map.h"

namespace cosetq::cuda {
namespace {

template <Form kForm, int kColumns>
void Launch(const PackedView& w, const HalfRows& a, const ManyCut& cut, const Results& y, cudaStream_t stream) {
  const auto kernel = Many<kForm, kColumns>;
  const int shared = ManySharedBytes<kColumns>(cut.splits);
  ReserveSharedMemory(kernel);
  LaunchClusters("multiply many rows", kernel, dim3(static_cast<unsigned>(cut.blocks)), kManyThreads, static_cast<size_t>(shared),
                 static_cast<unsigned>(cut.splits * cut.peers), true, stream, w, RowMap(a, kPairGroups, kColumns / cut.peers, 1), a.steps, cut, y);
}

// The cut that takes least by a count of cycles: of a slice, which is what the tensor cores take or what copies do; to begin, to finish a
// tile, and to add sums up.
ManyCut CutOf(const PackedView& w, int batch) {
  struct Width {
    int columns, cycles;  // of a slice
  };
  constexpr Width kWidths[] = {{256, 1060}, {128, 560}, {64, 380}};
  constexpr double kBegin = 4000, kShared = 4000;
  ManyCut best = {};
  double least = 0;
  const int processors = CurrentDevice().processors, pairs = (w.chunks + kPairPanels - 1) / kPairPanels;
  const auto take = [&](const ManyCut& cut, double cycles) {
    if (least > 0 && cycles >= least) return;
    least = cycles;
    best = cut;
  };
  for (const Width& width : kWidths) {
    const int column_tiles = (batch + width.columns - 1) / width.columns;
    const double pair = kGroup * width.cycles, finish = 19 * width.columns;
    for (const int peers : {1, 2}) {
      const int tiles = (w.tiles + kConsumerWarps * peers - 1) / (kConsumerWarps * peers) * column_tiles, teams = processors / peers;
      const int waves = (tiles + teams - 1) / teams;
      take({width.columns, 1, peers, std::min(tiles, teams) * peers}, kBegin + waves * (pairs * pair * (peers > 1 ? 0.94 : 1) + finish));
    }
    const int tiles = (w.tiles + kConsumerWarps - 1) / kConsumerWarps * column_tiles;
    for (const int splits : {2, 4, 8}) {
      if (width.columns == 256 || width.columns / splits < kPieceColumns || splits > pairs) continue;
      // Larger clusters leave some processors over.
      if (tiles * splits > processors - (splits > 2 ? 4 * splits : 0)) continue;
      take({width.columns, splits, 1, tiles * splits}, kBegin + (pairs + splits - 1) / splits * pair + finish / splits + kShared);
    }
  }
  return best;
}

template <Form kForm>
void LaunchCut(const PackedView& w, const HalfRows& a, void* y, bool half_y, const ManyCut& cut, cudaStream_t stream) {
  const auto launch = cut.columns == 256 ? Launch<kForm, 256> : cut.columns == 128 ? Launch<kForm, 128> : Launch<kForm, 64>;
  launch(w, a, cut, {y, a.rows, w.rows, half_y}, stream);
}

}  // namespace

bool ColumnsMany(const PackedView& w, const HalfRows& a, void* y, bool half_y, cudaStream_t stream) {
  if (!CurrentDevice().hopper || CurrentDevice().shared_limit < ManySharedBytes<256>(1)) return false;
  (w.form == Form::kTwoBits ? LaunchCut<Form::kTwoBits> : LaunchCut<Form::kNibbles>)(w, a, y, half_y, CutOf(w, a.rows), stream);
  return true;
}

}  // namespace cosetq::cuda
