// Weights decoded to bytes a slice of columns at a time, and integer activations.

#include <cstring>

#include "linear_job.h"

namespace cosetq {
namespace {

constexpr int64_t kDecodeWork = 6;
constexpr int64_t kUnitWork = 1 << 18;

struct PanelJob : Job {
  const PanelKernels* panel;
  int64_t depth;  // in blocks of groups
  int64_t whole;  // the same, filled up to whole panels
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

void MultiplyUnit(void* data, size_t i) {
  const PanelJob& job = *static_cast<const PanelJob*>(static_cast<Job*>(data));
  const Unit unit(job, i);
  const PanelKernels& kernels = *job.panel;
  alignas(64) uint8_t panel[kPanelBytes];
  alignas(64) float lanes[kMaxColumns * kTile];
  const bool whole =
      kernels.multiply_tile != nullptr && unit.columns <= kernels.tile_columns(*job.w);
  for (int64_t tile = unit.first_tile; tile < unit.last_tile; ++tile) {
    std::memset(lanes, 0, static_cast<size_t>(unit.columns * kTile) * sizeof(float));
    if (whole) {
      kernels.multiply_tile(*job.w, tile, job.Packed(unit.first_block),
                            job.Scales(unit.first_block), unit.columns, lanes);
    }
    for (int64_t d = 0; d < job.depth && !whole; d += kernels.blocks) {
      const int64_t count = std::min<int64_t>(kernels.blocks, job.depth - d);
      kernels.decode(*job.w, tile, d, count, panel);
      for (int64_t b = unit.first_block; b < unit.last_block; ++b) {
        kernels.multiply(*job.w, panel, job.Packed(b), job.Scales(b), d, count, job.Columns(b),
                         lanes + (b - unit.first_block) * job.columns * kTile);
      }
    }
    for (int64_t c = 0; c < unit.columns; ++c) {
      alignas(64) float sums[kTile];
      kernels.rows(lanes + c * kTile, sums);
      job.Store(tile, unit.first_column + c, sums);
    }
  }
  if (kernels.finish != nullptr) kernels.finish();
}

}  // namespace

Outcome RunPanel(const Job& common, int parts) {
  PanelJob job = {common, common.kernels->panel[parts - 1], 0, 0, nullptr, nullptr, nullptr};
  const int64_t batch = job.call->batch;
  job.depth = CeilDiv(job.w->groups, kBlockGroups);
  job.whole = CeilDiv(job.depth, job.panel->blocks) * job.panel->blocks;
  job.SetColumns(job.panel->columns);
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
