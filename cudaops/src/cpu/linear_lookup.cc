// Value look-up tables, for a few rows of A.

#include "activations.h"
#include "linear_job.h"

namespace cosetq {
namespace {

constexpr int64_t kUnitTiles = 4;   // tiles that share the tables in the first-level cache
constexpr int64_t kPairs = 4;       // pairs of groups whose tables fit there
constexpr int64_t kBuildPairs = 16;  // pairs of groups in one piece of table building

struct LookupJob : Job {
  float* packed;
  uint8_t* tables;
  float* steps;
  int64_t pairs;
};

void BuildUnit(void* data, size_t i) {
  const LookupJob& job = *static_cast<const LookupJob*>(static_cast<Job*>(data));
  const int64_t units = CeilDiv(job.pairs, kBuildPairs);
  const int64_t column = static_cast<int64_t>(i) / units;
  const int64_t pair = static_cast<int64_t>(i) % units * kBuildPairs;
  const int64_t at = column * job.pairs + pair;
  job.kernels->lookup_build(*job.w, job.packed + column * PackedDepth(*job.w), pair,
                            std::min(kBuildPairs, job.pairs - pair),
                            job.tables + at * PairTableBytes(*job.w), job.steps + at);
}

void LookupUnit(void* data, size_t i) {
  const LookupJob& job = *static_cast<const LookupJob*>(static_cast<Job*>(data));
  const WeightView& w = *job.w;
  alignas(64) float lanes[kUnitTiles][kLookupBatch][kTile] = {};
  const int64_t first = static_cast<int64_t>(i) * job.tiles_per_unit;
  const int64_t tiles = std::min(job.tiles_per_unit, w.tiles - first);
  for (int64_t pair = 0; pair < job.pairs; pair += kPairs) {
    const int64_t count = std::min(kPairs, job.pairs - pair);
    for (int64_t column = 0; column < job.call->batch; ++column) {
      const int64_t at = column * job.pairs + pair;
      const uint8_t* tables = job.tables + at * PairTableBytes(w);
      for (int64_t t = 0; t < tiles; ++t) {
        job.kernels->lookup(w, first + t, pair, count, tables, job.steps + at, lanes[t][column]);
      }
    }
  }
  for (int64_t t = 0; t < tiles; ++t) {
    for (int64_t column = 0; column < job.call->batch; ++column) {
      alignas(64) float sums[kTile];
      job.kernels->lane_rows(lanes[t][column], sums);
      job.Store(first + t, column, sums);
    }
  }
}

}  // namespace

Outcome RunLookup(const Job& common) {
  LookupJob job = {common, nullptr, nullptr, nullptr, 0};
  const WeightView& w = *job.w;
  const int64_t batch = job.call->batch;
  job.pairs = PackedDepth(w) / (2 * kGroup);
  job.packed = job.Allocate<float>(PackedDepth(w) * batch);
  job.tables = job.Allocate<uint8_t>(batch * job.pairs * PairTableBytes(w));
  job.steps = job.Allocate<float>(batch * job.pairs);
  float* row = job.call->a == nullptr ? job.Allocate<float>(w.cols) : nullptr;
  if (job.packed == nullptr || job.tables == nullptr || job.steps == nullptr ||
      (job.call->a == nullptr && row == nullptr)) {
    return Outcome::kNoMemory;
  }
  for (int64_t c = 0; c < batch; ++c) {
    PackBlock(w, *job.kernels, *job.call, c, 1, row, job.packed + c * PackedDepth(w));
  }
  job.tiles_per_unit = std::min(kUnitTiles, std::max<int64_t>(1, w.tiles / kManyUnits));
  const bool done = job.Run(BuildUnit, batch * CeilDiv(job.pairs, kBuildPairs)) &&
                    job.Run(LookupUnit, job.TileUnits());
  return done ? Outcome::kDone : Outcome::kNoThreads;
}

}  // namespace cosetq
