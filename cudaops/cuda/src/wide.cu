#include "wide.h"

#include <cuda_fp16.h>

#include <algorithm>

#include "row_map.h"
#include "wide.cuh"
#include "wide_rows.cuh"

namespace cosetq::cuda {
namespace {

int64_t RoundUp(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// The cut that takes least by a count of cycles, with measured numbers: of a slice, which is what the tensor cores take, but with few
// columns what the decoding takes; to begin; to finish a tile; and to hand sums over and add them up. can_lie: rows can be fetched as they
// lie, which no kernel ahead makes ready then.
WideCut CutOf(const PackedView& w, int64_t batch, bool bytes, bool can_lie) {
  struct Width {
    int columns, halves, one_level, bytes, single;  // cycles of a slice; of float16 and one level; of bytes of weights of single columns
  };
  constexpr Width kWidths[] = {{256, 1100, 900, 1400, 1040}, {128, 840, 760, 1050, 640}, {64, 720, 650, 900, 600}};
  constexpr double kBegin = 5000, kBeginTogether = 4000, kTogether = 0.96;  // peers save what fetching costs
  constexpr int kLying = 130;                                               // more for a slice
  const double prepare = 5500 + 1.1e-3 * static_cast<double>(batch) * w.cols;
  WideCut best = {};
  double least = 0;
  const auto take = [&](WideCut cut, double cycles, double slices) {
    const double lying = cycles + slices * kLying;
    cycles += prepare;
    cut.lying = can_lie && cut.columns <= 128 && cut.even == 0 && lying < cycles;
    if (cut.lying) cycles = lying;
    if (least > 0 && cycles >= least) return;
    least = cycles;
    best = cut;
  };
  const int processors = CurrentDevice().processors;
  const auto tiles_of = [&](int columns, int peers, int warps = kConsumerWarps) {
    const int row_blocks = (w.tiles + warps * peers - 1) / (warps * peers);
    return row_blocks * static_cast<int>((batch + columns - 1) / columns);
  };
  for (const Width& width : kWidths) {
    const int slice = IsColumns(w.form) ? width.single : bytes ? width.bytes : w.form == Form::kOneByte ? width.one_level : width.halves;
    const double slices = static_cast<double>(AllSlices(w, bytes)) / w.chunks, chunk = slices * slice;  // of a chunk
    const double finish = 19 * width.columns, kept = IsColumns(w.form) ? 50 : 60;  // of a column whose sums another block finishes
    for (const int peers : {1, 2}) {
      // Blocks that stay, with whole tiles alone, or after the last one or two of each, cut evenly.
      const int tiles = tiles_of(width.columns, peers), teams = processors / peers, waves = (tiles + teams - 1) / teams;
      const double each = peers > 1 ? kTogether * chunk : chunk, begin = peers > 1 ? kBegin + kBeginTogether : kBegin;
      take({width.columns, 1, peers, std::min(tiles, teams) * peers}, begin + waves * (w.chunks * each + finish), waves * w.chunks * slices);
      const int whole = std::max(tiles / teams - 1, 0), even = tiles - whole * teams;
      const int64_t chunks = static_cast<int64_t>(even) * w.chunks, most = (chunks + teams - 1) / teams;
      const auto used = static_cast<int>(whole > 0 ? teams : (chunks + most - 1) / most);
      const double longest = static_cast<double>(most) + static_cast<double>(whole) * w.chunks;
      take({width.columns, 1, peers, used * peers, even}, begin + longest * each + (whole + 2) * finish + 4000 + kept * width.columns, 0);
    }
    const int tiles = tiles_of(width.columns, 1);
    for (const int splits : {2, 4, 8}) {
      if (width.columns / splits < kPieceColumns || splits > w.chunks) continue;
      // Larger clusters leave some processors over.
      if (tiles * splits > processors - (splits > 2 ? 4 * splits : 0)) continue;
      const double chunks = (w.chunks + splits - 1) / splits;
      take({width.columns, splits, 1, tiles * splits}, kBegin + chunks * chunk + finish / splits + 5400 + 22 * width.columns, chunks * slices);
    }
    if (IsColumns(w.form) || width.columns > 128) continue;
    // Divided ones. Products read twice as much of the activations from shared memory, and blocks of a cluster share half as many sums.
    const int divided_tiles = tiles_of(width.columns, 1, kConsumerWarps / 2);
    for (const int splits : {1, 2, 4}) {
      if (width.columns / splits < 2 * kPieceColumns || 2 * splits > w.chunks) continue;
      if (divided_tiles * splits > processors - (splits > 2 ? 4 * splits : 0)) continue;
      const double each = chunk + slices * 3200 / width.columns, chunks = (w.chunks + 2 * splits - 1) / (2 * splits);
      take({width.columns, splits, 1, divided_tiles * splits, 0, true},
           kBegin + chunks * each + finish / (2 * splits) + 600 + 6 * width.columns + (splits > 1 ? 3000 + 11 * width.columns : 0), chunks * slices);
    }
  }
  return best;
}

// Whether blocks leave sums for others.
bool HandsOver(const WideCut& cut) { return cut.even > 0 || cut.splits > 1; }

// Where things lie in the workspace.
struct Workspace {
  WideActivations x = {};
  Handover handover;
  size_t bytes;

  Workspace(const PackedView& w, int64_t batch, bool eight_bits, const WideCut& cut, void* memory) {
    auto* at = static_cast<unsigned char*>(memory);
    if (!cut.lying) {
      const int64_t rows = RoundUp(batch, 256);
      x.slices = at;
      x.steps = reinterpret_cast<float*>(x.slices + rows * AllSlices(w, eight_bits) * kSliceBytes);
      x.corrections = reinterpret_cast<int32_t*>(x.steps + rows);
      x.added = x.corrections + rows;
      at = reinterpret_cast<unsigned char*>(x.added + rows);
    }
    handover.sums = reinterpret_cast<uint4*>(at);
    if (HandsOver(cut)) at += int64_t{cut.blocks} * cut.columns * kWideRows * 4;
    handover.ready = reinterpret_cast<uint32_t*>(at);
    bytes = static_cast<size_t>(at - static_cast<unsigned char*>(memory)) + 4 * static_cast<size_t>(Flags(cut));
  }

  static int Flags(const WideCut& cut) { return cut.even > 0 ? kConsumerWarps * cut.blocks : 0; }
};

}  // namespace

size_t WideWorkspace(const PackedView& w, int64_t batch, bool bytes, bool half_a) {
  // Where rows begin is not known yet.
  const auto of = [&](bool can_lie) { return Workspace(w, batch, bytes, CutOf(w, batch, bytes, can_lie), nullptr).bytes; };
  return std::max(of(false), of(half_a && !bytes));
}

WideKernel WideLinear(const PackedView& w, const Turn& turn, const void* a, bool half_a, int64_t batch, bool bytes, void* y, bool half_y,
                void* workspace, cudaStream_t stream) {
  const auto* halves = static_cast<const __half*>(a);
  const auto rows = static_cast<int>(batch);
  const WideCut cut = CutOf(w, batch, bytes, half_a && !bytes && turn.factors == nullptr && Whole(w, halves));
  const Workspace to(w, batch, bytes, cut, workspace);
  CUtensorMap map = {};
  if (cut.lying) {
    map = RowMap({halves, rows, w.cols, w.groups, w.groups, nullptr}, kPanelGroups, cut.columns, 2 / cut.peers);
  } else {
    const auto prepare = turn.factors == nullptr ? (half_a ? PrepareRows<false, __half> : PrepareRows<false, float>)
                                                 : (half_a ? PrepareRows<true, __half> : PrepareRows<true, float>);
    prepare(w, turn, a, bytes, batch, cut.columns, to.x, to.handover.ready, Workspace::Flags(cut), stream);
  }
  const auto multiply = bytes ? MultiplyWide<true> : MultiplyWide<false>;
  multiply(w, to.x, map, to.handover, cut, {y, rows, w.rows, half_y}, stream);
  return cut.lying ? kLyingRows : cut.divided ? kDividedTiles : kWideTiles;
}

}  // namespace cosetq::cuda
