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
  float* row;  // a row of floats per block, for half-precision activations

  // Of one block of columns.
  uint8_t* Packed(int64_t block) const {
    return packed + block * columns * whole * panel->row_bytes;
  }
  float* Scales(int64_t block) const { return scales + block * columns * whole * panel->scales; }
};

void QuantizeUnit(void* data, size_t i) {
  const PanelJob& job = *static_cast<const PanelJob*>(static_cast<Job*>(data));
  const WeightView& w = *job.w;
  const int64_t block = static_cast<int64_t>(i), columns = job.Columns(block);
  for (int64_t c = 0; c < columns; ++c) {
    const int64_t at = (block * job.columns + c) * w.cols;
    const float* a;
    if (job.call->a != nullptr) {
      a = job.call->a + at;
    } else {
      float* row = job.row + block * w.cols;
      job.kernels->to_float(job.call->a_half + at, row, w.cols);
      a = row;
    }
    job.panel->quantize(w, a, c, columns, job.Packed(block), job.Scales(block));
  }
}

void MultiplyUnit(void* data, size_t i) {
  const PanelJob& job = *static_cast<const PanelJob*>(static_cast<Job*>(data));
  const Unit unit(job, i);
  const PanelKernels& kernels = *job.panel;
  alignas(64) uint8_t panel[kPanelBytes];
  alignas(64) float lanes[kMaxColumns * kTile];
  for (int64_t tile = unit.first_tile; tile < unit.last_tile; ++tile) {
    std::memset(lanes, 0, static_cast<size_t>(unit.columns * kTile) * sizeof(float));
    for (int64_t d = 0; d < job.depth; d += kernels.blocks) {
      const int64_t count = std::min<int64_t>(kernels.blocks, job.depth - d);
      kernels.decode(*job.w, tile, d, count, panel);
      for (int64_t b = unit.first_block; b < unit.last_block; ++b) {
        const int64_t columns = job.Columns(b);
        kernels.multiply(panel, job.Packed(b) + d * columns * kernels.row_bytes,
                         job.Scales(b) + d * columns * kernels.scales, count,
                         static_cast<int>(columns),
                         lanes + (b - unit.first_block) * job.columns * kTile);
      }
    }
    for (int64_t c = 0; c < unit.columns; ++c) {
      alignas(64) float sums[kTile];
      kernels.rows(lanes + c * kTile, sums);
      job.Store(tile, unit.first_column + c, sums);
    }
  }
}

}  // namespace

Outcome RunPanel(const Job& common, int parts) {
  PanelJob job = {common, common.kernels->panel[parts - 1], 0, 0, nullptr, nullptr, nullptr};
  const int64_t batch = job.call->batch;
  job.depth = CeilDiv(job.w->groups, kBlockGroups);
  job.whole = CeilDiv(job.depth, job.panel->blocks) * job.panel->blocks;
  job.SetColumns(job.panel->columns);
  job.packed = job.Allocate<uint8_t>(batch * job.whole * job.panel->row_bytes);
  job.scales = job.Allocate<float>(batch * job.whole * job.panel->scales);
  if (job.packed == nullptr || job.scales == nullptr) return Outcome::kNoMemory;
  if (job.call->a == nullptr) {
    job.row = job.Allocate<float>(job.blocks * job.w->cols);
    if (job.row == nullptr) return Outcome::kNoMemory;
  }
  job.Divide(kDecodeWork, kUnitWork);
  const bool done = job.Run(QuantizeUnit, job.blocks) && job.Run(MultiplyUnit, job.Units());
  return done ? Outcome::kDone : Outcome::kNoThreads;
}

}  // namespace cosetq
