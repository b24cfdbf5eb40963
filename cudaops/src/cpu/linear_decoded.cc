// Weights decoded to float a slice of columns at a time.

#include <cstring>

#include "activations.h"
#include "linear_job.h"

namespace cosetq {
namespace {

constexpr int64_t kDecodeWork = 8;
constexpr int64_t kUnitWork = 1 << 16;

struct DecodedJob : Job {
  DecodeFn decode;
  float* packed;
  float* row;  // one row of floats per block, for half-precision activations

  float* Packed(int64_t block) const { return packed + block * kColumns * PackedDepth(*w); }
};

void PackUnit(void* data, size_t i) {
  const DecodedJob& job = *static_cast<const DecodedJob*>(static_cast<Job*>(data));
  const int64_t block = static_cast<int64_t>(i);
  float* row = job.row == nullptr ? nullptr : job.row + block * job.w->cols;
  PackBlock(*job.w, *job.kernels, *job.call, block * kColumns, job.Columns(block), row,
            job.Packed(block));
}

void MultiplyUnit(void* data, size_t i) {
  const DecodedJob& job = *static_cast<const DecodedJob*>(static_cast<Job*>(data));
  const WeightView& w = *job.w;
  const Unit unit(job, i);
  alignas(64) float panel[kDepthGroups * kGroup * kTile];
  alignas(64) float sums[kMaxColumns * kTile];
  for (int64_t tile = unit.first_tile; tile < unit.last_tile; ++tile) {
    std::memset(sums, 0, static_cast<size_t>(unit.columns * kTile) * sizeof(float));
    for (int64_t g = 0; g < w.groups; g += kDepthGroups) {
      const int64_t groups = std::min<int64_t>(kDepthGroups, w.groups - g);
      job.decode(w, tile, g, groups, panel);
      for (int64_t b = unit.first_block; b < unit.last_block; ++b) {
        const int64_t count = job.Columns(b);
        job.kernels->multiply(panel, job.Packed(b) + g * kGroup * count, groups * kGroup,
                              static_cast<int>(count), w.tile,
                              sums + (b - unit.first_block) * kColumns * kTile);
      }
    }
    job.Store(job.kernels->store, tile, unit.first_column, unit.columns, sums);
  }
}

}  // namespace

Outcome RunDecoded(const Job& common, DecodeFn decode) {
  DecodedJob job = {common, decode, nullptr, nullptr};
  const LinearCall& call = *job.call;
  job.packed = job.Allocate<float>(PackedDepth(*job.w) * call.batch);
  if (job.packed == nullptr) return Outcome::kNoMemory;
  if (call.a == nullptr) {
    job.row = job.Allocate<float>(job.blocks * job.w->cols);
    if (job.row == nullptr) return Outcome::kNoMemory;
  }
  job.Divide(kDecodeWork, kUnitWork);
  const bool done = job.Run(PackUnit, job.blocks, MultiplyUnit, job.Units());
  return done ? Outcome::kDone : Outcome::kNoThreads;
}

}  // namespace cosetq
