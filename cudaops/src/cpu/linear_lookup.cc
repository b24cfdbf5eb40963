// Value look-up tables, for a few rows of A.

#include <atomic>
#include <cstring>

#include "activations.h"
#include "linear_job.h"

namespace cosetq {
namespace {

constexpr int64_t kUnitTiles = 4;          // most tiles that a thread takes at a time
constexpr int64_t kShare = 4;              // of the tiles that are left, the part that a thread takes
constexpr int64_t kSliceBytes = 16 << 10;  // of tables that stay in the first-level cache while tiles pass
constexpr int64_t kBuildGroups = 8;        // groups in one piece of table building
// Tables of so many bytes every thread builds for itself: that takes less time than to wait for another thread and to
// fetch what it has built.
constexpr int64_t kOwnBytes = 64 << 10;
constexpr int64_t kOwnGroups = 32;  // groups built at a time then
constexpr int64_t kOwnTiles = 6;    // fewer are not worth the tables of one more thread

// Every thread takes some of the tiles that are left, until there are none.
struct LookupJob : Job {
  int parts;
  const LookupKernels* lookup;
  int64_t depth;  // in units of groups, see LookupGroups
  int64_t table_bytes;
  uint8_t* tables;  // null: of each thread's own
  float* steps;
  std::atomic<int64_t> next;  // tile

  bool Take(int64_t* first, int64_t* count) {
    int64_t at = next.load(std::memory_order_relaxed);
    do {
      if (at >= w->tiles) return false;
      *count = std::max<int64_t>(1, std::min(kUnitTiles, (w->tiles - at) / kShare));
    } while (!next.compare_exchange_weak(at, at + *count, std::memory_order_relaxed));
    *first = at;
    return true;
  }

  // Tables and steps of some units of groups of one row of A.
  void Build(int64_t column, int64_t first, int64_t count, uint8_t* to, float* to_steps) const {
    const int64_t groups = LookupGroups(parts);
    float packed[kOwnGroups * kGroup];
    PackGroups(*w, *kernels, *call, column, first * groups, count * groups, packed);
    const int64_t at = column * depth + first;
    lookup->build(*w, packed, count, to + at * table_bytes, to_steps + at);
  }

  void Tiles(int64_t first, int64_t tiles, const uint8_t* from, const float* from_steps) const;
};

void LookupJob::Tiles(int64_t first, int64_t tiles, const uint8_t* from, const float* from_steps) const {
  alignas(64) float lanes[kUnitTiles][kLookupRows][kTile];
  std::memset(lanes, 0, static_cast<size_t>(tiles) * sizeof lanes[0]);
  const int64_t most = std::max<int64_t>(1, kSliceBytes / (table_bytes * call->batch));
  for (int64_t d = 0; d < depth; d += most) {
    const int64_t count = std::min(most, depth - d);
    for (int64_t column = 0; column < call->batch; ++column) {
      const int64_t at = column * depth + d;
      for (int64_t t = 0; t < tiles; ++t) {
        lookup->lookup(*w, first + t, d, count, from + at * table_bytes, from_steps + at,
                       lanes[t][column]);
      }
    }
  }
  for (int64_t t = 0; t < tiles; ++t) {
    for (int64_t column = 0; column < call->batch; ++column) {
      alignas(64) float sums[kTile];
      lookup->rows(lanes[t][column], sums);
      Store(first + t, column, sums);
    }
  }
}

void BuildPiece(void* data, size_t i) {
  const LookupJob& job = *static_cast<const LookupJob*>(static_cast<Job*>(data));
  const int64_t most = kBuildGroups / LookupGroups(job.parts);
  const int64_t pieces = CeilDiv(job.depth, most);
  const int64_t column = static_cast<int64_t>(i) / pieces;
  const int64_t first = static_cast<int64_t>(i) % pieces * most;
  job.Build(column, first, std::min(most, job.depth - first), job.tables, job.steps);
}

// One thread's work with the tables of all.
void LookupThread(void* data, size_t) {
  LookupJob& job = *static_cast<LookupJob*>(static_cast<Job*>(data));
  for (int64_t first, count; job.Take(&first, &count);) job.Tiles(first, count, job.tables, job.steps);
}

// The same with tables of its own.
void LookupAlone(void* data, size_t) {
  LookupJob& job = *static_cast<LookupJob*>(static_cast<Job*>(data));
  // Who comes late leaves the rest to the others, who have their tables.
  const int64_t at = job.next.load(std::memory_order_relaxed);
  if (at > 0 && job.w->tiles - at < kOwnTiles) return;
  int64_t first, count;
  if (!job.Take(&first, &count)) return;
  alignas(64) uint8_t tables[kOwnBytes];
  float steps[kOwnBytes / kLeastTable];
  const int64_t most = kOwnGroups / LookupGroups(job.parts);
  for (int64_t column = 0; column < job.call->batch; ++column) {
    for (int64_t d = 0; d < job.depth; d += most)
      job.Build(column, d, std::min(most, job.depth - d), tables, steps);
  }
  do {
    job.Tiles(first, count, tables, steps);
  } while (job.Take(&first, &count));
}

}  // namespace

Outcome RunLookup(const Job& common, int parts) {
  LookupJob job = {common, parts, &common.kernels->lookup[parts - 1], 0, 0, nullptr, nullptr, {0}};
  const WeightView& w = *job.w;
  const int64_t batch = job.call->batch;
  job.depth = CeilDiv(w.groups, LookupGroups(parts));
  job.table_bytes = LookupTableBytes(w, parts);
  const int64_t bytes = batch * job.depth * job.table_bytes;
  if (bytes <= kOwnBytes)
    return job.Run(LookupAlone, CeilDiv(w.tiles, kOwnTiles)) ? Outcome::kDone : Outcome::kNoThreads;
  job.tables = job.Allocate<uint8_t>(bytes);
  job.steps = job.Allocate<float>(batch * job.depth);
  if (job.tables == nullptr || job.steps == nullptr) return Outcome::kNoMemory;
  const int64_t pieces = batch * CeilDiv(job.depth, kBuildGroups / LookupGroups(parts));
  const bool done = job.Run(BuildPiece, pieces, LookupThread, CeilDiv(w.tiles, 2));
  return done ? Outcome::kDone : Outcome::kNoThreads;
}

}  // namespace cosetq
