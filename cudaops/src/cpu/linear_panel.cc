// Weights decoded to bytes a slice of columns at a time, and integer activations.

#include <cstring>

#include "linear_job.h"

namespace cosetq {
namespace {

constexpr int64_t kDecodeWork = 6;
constexpr int64_t kUnitWork = 1 << 18;
constexpr int64_t kFewRows = 8;  // of A: see PanelKernels

struct PanelJob : Job {
  const PanelKernels* panel;
  bool on_the_way;       // weights are decoded where they are multiplied, see PanelTileFn
  int64_t panel_blocks;  // decoded at a time
  int64_t depth;         // in blocks of groups
  int64_t whole;         // the same, filled up to whole panels
  uint8_t* packed;
  float* scales;
  float* values;  // rows of A as floats, if they are of half precision

  // Of one block of columns.
  uint8_t* Packed(int64_t block) const {
    return packed + block * columns * whole * panel->row_bytes;
  }
  float* Scales(int64_t block) const { return scales + block * columns * whole * panel->scales; }
};

void QuantizeRow(void* data, size_t i) {
  const PanelJob& job = *static_cast<const PanelJob*>(static_cast<Job*>(data));
  const WeightView& w = *job.w;
  const int64_t row = static_cast<int64_t>(i), block = row / job.columns;
  const float* a;
  if (job.call->a != nullptr) {
    a = job.call->a + row * w.cols;
  } else {
    float* values = job.values + row * w.cols;
    job.kernels->to_float(job.call->a_half + row * w.cols, values, w.cols);
    a = values;
  }
  job.panel->quantize(w, a, row % job.columns, job.Columns(block), job.Packed(block),
                      job.Scales(block));
}

// The codes of blocks [first, first + count) of a tile, or of the next one: they stand in the order of decoding.
Ahead Codes(const WeightView& w, int64_t tile, int64_t first, int64_t count) {
  const int64_t bytes = static_cast<int64_t>(w.elements) * w.code_bytes * w.tile;  // of a group
  const int64_t at = tile * w.groups + first * kBlockGroups;
  const int64_t groups = std::clamp<int64_t>(w.tiles * w.groups - at, 0, count * kBlockGroups);
  return {static_cast<const uint8_t*>(w.codes) + at * bytes, groups * bytes / kLineBytes};
}

// One tile and the rows of A of a unit, a panel at a time. Of each block of columns sums begin and end where they are
// in the first-level cache.
void MultiplyPanels(const PanelJob& job, const Unit& unit, int64_t tile, float* lanes) {
  const PanelKernels& kernels = *job.panel;
  alignas(64) uint8_t panel[kPanelBytes];
  for (int64_t d = 0; d < job.depth; d += job.panel_blocks) {
    const int64_t count = std::min<int64_t>(job.panel_blocks, job.depth - d);
    kernels.decode(*job.w, tile, d, count, panel);
    // Every block of columns fetches a share of what the next panel is decoded from.
    Ahead ahead = Codes(*job.w, tile, d + count, job.panel_blocks);
    ahead.lines = CeilDiv(ahead.lines, unit.last_block - unit.first_block);
    float* sums = lanes;
    for (int64_t b = unit.first_block; b < unit.last_block; ++b) {
      const int64_t columns = job.Columns(b);
      if (d == 0) std::memset(sums, 0, static_cast<size_t>(columns * kTile) * sizeof(float));
      kernels.multiply(*job.w, panel, job.Packed(b), job.Scales(b), d, count, columns, ahead, sums);
      if (d + count == job.depth) job.Store(kernels.store, tile, b * job.columns, columns, sums);
      ahead.at += ahead.lines * kLineBytes;
      sums += columns * kTile;
    }
  }
}

// The same where weights are decoded on the way.
void MultiplyWhole(const PanelJob& job, const Unit& unit, int64_t tile, float* lanes) {
  const PanelKernels& kernels = *job.panel;
  std::memset(lanes, 0, static_cast<size_t>(unit.columns * kTile) * sizeof(float));
  kernels.multiply_tile(*job.w, tile, job.Packed(unit.first_block), job.Scales(unit.first_block), unit.columns, lanes);
  job.Store(kernels.store, tile, unit.first_column, unit.columns, lanes);
}

void MultiplyUnit(void* data, size_t i) {
  const PanelJob& job = *static_cast<const PanelJob*>(static_cast<Job*>(data));
  const Unit unit(job, i);
  const PanelKernels& kernels = *job.panel;
  alignas(64) float lanes[kMaxColumns * kTile];
  const auto multiply = job.on_the_way ? MultiplyWhole : MultiplyPanels;
  for (int64_t tile = unit.first_tile; tile < unit.last_tile; ++tile) multiply(job, unit, tile, lanes);
  if (kernels.finish != nullptr) kernels.finish();
}

}  // namespace

Outcome RunPanel(const Job& common, int parts) {
  PanelJob job = {common, common.kernels->panel[parts - 1], false, 0, 0, 0, nullptr, nullptr, nullptr};
  const int64_t batch = job.call->batch;
  job.panel_blocks = batch <= kFewRows ? job.panel->few_blocks : job.panel->blocks;
  job.depth = CeilDiv(job.w->groups, kBlockGroups);
  job.whole = CeilDiv(job.depth, job.panel_blocks) * job.panel_blocks;
  job.on_the_way = job.panel->multiply_tile != nullptr && batch <= job.panel->tile_columns(*job.w);
  job.SetColumns(job.on_the_way ? batch : job.panel->columns);
  const int64_t rows = CeilDiv(batch, job.panel->together) * job.panel->together;
  job.packed = job.Allocate<uint8_t>(rows * job.whole * job.panel->row_bytes);
  job.scales = job.Allocate<float>(batch * job.whole * job.panel->scales);
  if (job.packed == nullptr || job.scales == nullptr) return Outcome::kNoMemory;
  if (job.call->a == nullptr) {
    job.values = job.Allocate<float>(batch * job.w->cols);
    if (job.values == nullptr) return Outcome::kNoMemory;
  }
  job.Divide(kDecodeWork, kUnitWork);
  const bool done = job.Run(QuantizeRow, batch, MultiplyUnit, job.Units());
  return done ? Outcome::kDone : Outcome::kNoThreads;
}

}  // namespace cosetq
