// Value look-up tables, for a few rows of A.

#include "activations.h"
#include "linear_job.h"

namespace cosetq {
namespace {

constexpr int64_t kUnitTiles = 4;          // tiles that share the tables in the first-level cache
constexpr int64_t kSliceBytes = 16 << 10;  // of tables that fit there
constexpr int64_t kBuildGroups = 8;        // groups in one piece of table building

// Tiles of W are taken by tiles_per_unit, the last of them one by one, so that threads end together.
struct LookupJob : Job {
  int parts;
  const LookupKernels* lookup;
  int64_t depth;  // in units of groups, see LookupGroups
  int64_t table_bytes;
  uint8_t* tables;
  float* steps;

  int64_t WholeUnits() const {
    return std::max<int64_t>(0, w->tiles - 2 * tiles_per_unit) / tiles_per_unit;
  }
  int64_t Parts() const { return w->tiles - WholeUnits() * (tiles_per_unit - 1); }
};

// Packs some groups of a row of A and builds their tables.
void BuildPiece(void* data, size_t i) {
  const LookupJob& job = *static_cast<const LookupJob*>(static_cast<Job*>(data));
  const int64_t unit_groups = LookupGroups(job.parts), most = kBuildGroups / unit_groups;
  const int64_t pieces = CeilDiv(job.depth, most);
  const int64_t column = static_cast<int64_t>(i) / pieces;
  const int64_t first = static_cast<int64_t>(i) % pieces * most;
  const int64_t count = std::min(most, job.depth - first), at = column * job.depth + first;
  float packed[kBuildGroups * kGroup];
  PackGroups(*job.w, *job.kernels, *job.call, column, first * unit_groups, count * unit_groups,
             packed);
  job.lookup->build(*job.w, packed, count, job.tables + at * job.table_bytes, job.steps + at);
}

void LookupUnit(void* data, size_t i) {
  const LookupJob& job = *static_cast<const LookupJob*>(static_cast<Job*>(data));
  const WeightView& w = *job.w;
  alignas(64) float lanes[kUnitTiles][kLookupRows][kTile] = {};
  const int64_t unit = static_cast<int64_t>(i), whole = job.WholeUnits();
  const int64_t first = unit + std::min(unit, whole) * (job.tiles_per_unit - 1);
  const int64_t tiles = unit < whole ? job.tiles_per_unit : 1;
  const int64_t most = std::max<int64_t>(1, kSliceBytes / (job.table_bytes * job.call->batch));
  for (int64_t d = 0; d < job.depth; d += most) {
    const int64_t count = std::min(most, job.depth - d);
    for (int64_t column = 0; column < job.call->batch; ++column) {
      const int64_t at = column * job.depth + d;
      for (int64_t t = 0; t < tiles; ++t) {
        job.lookup->lookup(w, first + t, d, count, job.tables + at * job.table_bytes,
                           job.steps + at, lanes[t][column]);
      }
    }
  }
  for (int64_t t = 0; t < tiles; ++t) {
    for (int64_t column = 0; column < job.call->batch; ++column) {
      alignas(64) float sums[kTile];
      job.lookup->rows(lanes[t][column], sums);
      job.Store(first + t, column, sums);
    }
  }
}

}  // namespace

Outcome RunLookup(const Job& common, int parts) {
  LookupJob job = {common, parts, &common.kernels->lookup[parts - 1], 0, 0, nullptr, nullptr};
  const WeightView& w = *job.w;
  const int64_t batch = job.call->batch;
  job.depth = CeilDiv(w.groups, LookupGroups(parts));
  job.table_bytes = LookupTableBytes(w, parts);
  job.tables = job.Allocate<uint8_t>(batch * job.depth * job.table_bytes);
  job.steps = job.Allocate<float>(batch * job.depth);
  if (job.tables == nullptr || job.steps == nullptr) return Outcome::kNoMemory;
  job.tiles_per_unit = std::min(kUnitTiles, std::max<int64_t>(1, w.tiles / kManyUnits));
  const int64_t pieces = batch * CeilDiv(job.depth, kBuildGroups / LookupGroups(parts));
  const bool done = job.Run(BuildPiece, pieces, LookupUnit, job.Parts());
  return done ? Outcome::kDone : Outcome::kNoThreads;
}

}  // namespace cosetq
