// Value look-up tables, for a few rows of A.
//
// The columns of W are cut into slices. A thread that works on a slice builds the tables of its columns for itself, takes some of
// the tiles that are left of it, and goes on to the slice of which most is left. So threads wait for nobody, tables stay near the
// thread that reads them, and what one thread passes to another is a sum for each row and slice: 4 bytes for a row, where tables
// have 64 for a column. Slices depend on the layer alone and are added up in their order: results are the same with any threads.

#include <atomic>
#include <cstring>
#include <new>

#include "activations.h"
#include "linear_job.h"

namespace cosetq {
namespace {

constexpr int64_t kSliceGroups = 128;      // most of a slice
constexpr int64_t kUnitTiles = 4;          // most tiles that a thread takes at a time
constexpr int64_t kShare = 4;              // of the tiles that are left, the part that a thread takes
constexpr int64_t kPartBytes = 16 << 10;   // of tables that stay in the first-level cache while tiles pass
constexpr int64_t kBuildGroups = 32;       // whose tables are built at a time
constexpr int64_t kWorthTiles = 6;         // fewer do not repay the tables of one more thread
static_assert(kWorthTiles <= kLookupTiles, "or no thread would begin with a weight of few tiles");
// Of a slice, for as many rows of A as there may be.
constexpr int64_t kMostTables = kSliceGroups * kLookupRows * (kBlockTable + kNibbleTable);  // bytes
constexpr int64_t kMostSteps = kSliceGroups * kLookupRows / 4;

// The columns that share tables.
struct Slice {
  alignas(64) std::atomic<int64_t> next;  // tile
};

struct LookupJob : Job {
  int parts;
  const LookupKernels* lookup;
  int64_t depth;  // in units of groups, see LookupGroups
  int64_t table_bytes;
  int64_t slice_count;
  int64_t slice_depth;
  int64_t bodies;  // that the pool is asked to run
  Slice* slices;
  float* sums;                 // [tile][slice][row of A][kTile]; null for one slice
  std::atomic<int64_t>* done;  // tiles of all slices together, for every kUnitTiles tiles

  // The slice of which most is left, if that is worth while. Of several the first from `own` on.
  int64_t Choose(int64_t own) const {
    int64_t best = -1, most = kWorthTiles - 1;
    for (int64_t i = 0; i < slice_count; ++i) {
      const int64_t s = (own + i) % slice_count;
      const int64_t left = w->tiles - slices[s].next.load(std::memory_order_relaxed);
      if (left > most) most = left, best = s;
    }
    return best;
  }

  // Takes some of the tiles that are left of a slice, all of the same kUnitTiles.
  bool Take(Slice* slice, int64_t* first, int64_t* count) {
    const int64_t least = std::min(slice_count, kUnitTiles);
    int64_t at = slice->next.load(std::memory_order_relaxed);
    do {
      if (at >= w->tiles) return false;
      const int64_t share = std::clamp((w->tiles - at) / kShare, least, kUnitTiles);
      *count = std::min({share, w->tiles - at, kUnitTiles - at % kUnitTiles});
    } while (!slice->next.compare_exchange_weak(at, at + *count, std::memory_order_relaxed));
    *first = at;
    return true;
  }

  const uint8_t* Codes(int64_t tile, int64_t unit) const {
    const int64_t group = tile * w->groups + unit * LookupGroups(parts);
    return static_cast<const uint8_t*>(w->codes) + group * w->elements * w->code_bytes * w->tile;
  }

  void Build(int64_t slice, uint8_t* tables, float* steps) const;
  void Tiles(int64_t slice, int64_t first, int64_t count, const uint8_t* tables, const float* steps);
  void Finish(int64_t first, int64_t count) const;
};

// The tables of a slice, [row of A][unit].
void LookupJob::Build(int64_t slice, uint8_t* tables, float* steps) const {
  const int64_t groups = LookupGroups(parts), most = kBuildGroups / groups;
  const int64_t first = slice * slice_depth, last = std::min(first + slice_depth, depth);
  for (int64_t column = 0; column < call->batch; ++column) {
    for (int64_t d = first; d < last; d += most) {
      const int64_t count = std::min(most, last - d);
      float packed[kBuildGroups * kGroup];
      PackGroups(*w, *kernels, *call, column, d * groups, count * groups, packed);
      lookup->build(*w, packed, count, tables, steps);
      tables += count * table_bytes;
      steps += count;
    }
  }
}

void LookupJob::Tiles(int64_t slice, int64_t first, int64_t count, const uint8_t* tables, const float* steps) {
  alignas(64) float lanes[kUnitTiles][kLookupRows][kTile];
  std::memset(lanes, 0, static_cast<size_t>(count) * sizeof lanes[0]);
  const int64_t begin = slice * slice_depth, units = std::min(slice_depth, depth - begin);
  const int64_t most = std::max<int64_t>(1, kPartBytes / (table_bytes * call->batch));
  for (int64_t d = 0; d < units; d += most) {
    const int64_t here = std::min(most, units - d);
    for (int64_t t = 0; t < count; ++t) {
      // What comes next, most likely.
      const uint8_t* next;
      if (t + 1 < count) {
        next = Codes(first + t + 1, begin + d);
      } else if (d + here < units) {
        next = Codes(first, begin + d + here);
      } else {
        next = Codes(std::min(slices[slice].next.load(std::memory_order_relaxed), w->tiles - 1), begin);
      }
      for (int64_t column = 0; column < call->batch; ++column) {
        const int64_t at = column * units + d;
        lookup->lookup(*w, first + t, begin + d, here, tables + at * table_bytes, steps + at, next, lanes[t][column]);
      }
    }
  }
  if (slice_count == 1) {
    for (int64_t t = 0; t < count; ++t) Store(lookup->store, first + t, 0, call->batch, lanes[t][0]);
    return;
  }
  const int64_t row = call->batch * kTile;
  for (int64_t t = 0; t < count; ++t) {
    std::memcpy(sums + ((first + t) * slice_count + slice) * row, lanes[t], static_cast<size_t>(row) * sizeof(float));
  }
  // Whoever comes last adds up.
  const int64_t unit = first / kUnitTiles, tile = unit * kUnitTiles, all = std::min(kUnitTiles, w->tiles - tile);
  if (done[unit].fetch_add(count, std::memory_order_acq_rel) + count == all * slice_count) Finish(tile, all);
}

void LookupJob::Finish(int64_t first, int64_t count) const {
  const int64_t row = call->batch * kTile;
  for (int64_t tile = first; tile < first + count; ++tile) {
    const float* from = sums + tile * slice_count * row;
    alignas(64) float lanes[kLookupRows * kTile];
    std::memcpy(lanes, from, static_cast<size_t>(row) * sizeof(float));
    for (int64_t s = 1; s < slice_count; ++s) {
      for (int64_t i = 0; i < row; ++i) lanes[i] += from[s * row + i];
    }
    Store(lookup->store, tile, 0, call->batch, lanes);
  }
}

void LookupThread(void* data, size_t i) {
  LookupJob& job = *static_cast<LookupJob*>(static_cast<Job*>(data));
  alignas(64) uint8_t tables[kMostTables];
  float steps[kMostSteps];
  int64_t slice = static_cast<int64_t>(i) * job.slice_count / job.bodies;  // each begins elsewhere
  while ((slice = job.Choose(slice)) >= 0) {
    int64_t first, count;
    if (!job.Take(&job.slices[slice], &first, &count)) continue;
    job.Build(slice, tables, steps);
    do {
      job.Tiles(slice, first, count, tables, steps);
    } while (job.Take(&job.slices[slice], &first, &count));
  }
}

}  // namespace

Outcome RunLookup(const Job& common, int parts) {
  LookupJob job = {common, parts, &common.kernels->lookup[parts - 1], 0, 0, 0, 0, 0, nullptr, nullptr, nullptr};
  const WeightView& w = *job.w;
  const int64_t batch = job.call->batch;
  job.depth = CeilDiv(w.groups, LookupGroups(parts));
  job.table_bytes = LookupTableBytes(w, parts);
  job.slice_depth = CeilDiv(job.depth, CeilDiv(w.groups, kSliceGroups));
  job.slice_count = CeilDiv(job.depth, job.slice_depth);
  Slice one;
  job.slices = &one;
  if (job.slice_count > 1) {
    const int64_t units = CeilDiv(w.tiles, kUnitTiles);
    job.slices = job.Allocate<Slice>(job.slice_count);
    job.done = job.Allocate<std::atomic<int64_t>>(units);
    job.sums = job.Allocate<float>(w.tiles * job.slice_count * batch * kTile);
    if (job.slices == nullptr || job.done == nullptr || job.sums == nullptr) return Outcome::kNoMemory;
    for (int64_t u = 0; u < units; ++u) new (&job.done[u]) std::atomic<int64_t>(0);
  }
  for (int64_t s = 0; s < job.slice_count; ++s) new (&job.slices[s]) Slice{{0}};
  job.bodies = CeilDiv(w.tiles * job.slice_count, kWorthTiles);
  return job.Run(LookupThread, job.bodies) ? Outcome::kDone : Outcome::kNoThreads;
}

}  // namespace cosetq
