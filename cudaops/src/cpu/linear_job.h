// What the ways to compute a call have in common. Internal to linear*.cc.

#ifndef COSETQ_CPU_LINEAR_JOB_H_
#define COSETQ_CPU_LINEAR_JOB_H_

#include <algorithm>
#include <cstdint>

#include "linear.h"

namespace cosetq {

constexpr int64_t kMinRows = 96;  // of A: fewer are not worth decoding a tile again on another thread
constexpr int64_t kMaxColumns = 256;  // rows of A that share one decoding of a tile
constexpr int64_t kManyUnits = 16;  // enough pieces of work for the threads to finish together
constexpr int64_t kFewUnits = 8;    // so many tiles are enough without decoding any of them twice

inline int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One call. The rows of A are cut into blocks of columns; a unit of work is some tiles times some
// blocks.
struct Job {
  const WeightView* w;
  const Kernels* kernels;
  const LinearCall* call;
  Host* host;
  bool serial;  // too little work for threads
  int64_t columns;  // of a block, at most
  int64_t blocks;
  int64_t blocks_per_unit;
  int64_t tiles_per_unit;

  int64_t Columns(int64_t block) const {
    return std::min(columns, call->batch - block * columns);
  }
  int64_t TileUnits() const { return CeilDiv(w->tiles, tiles_per_unit); }
  int64_t Units() const { return TileUnits() * CeilDiv(blocks, blocks_per_unit); }

  // Cuts the rows of A into blocks.
  void SetColumns(int64_t most);

  // Chooses tiles and blocks per unit; decoding a weight costs as much as decode_work products, and
  // unit_work products are worth handing to a thread.
  void Divide(int64_t decode_work, int64_t unit_work);

  using Body = void (*)(void* job, size_t i);

  // Runs body on the pool, or here when the work is small.
  bool Run(Body body, int64_t total);

  // The same, all pieces of `prepare` before any of `body`. Threads meet in between without going
  // back to the pool, which would cost more than a piece.
  bool Run(Body prepare, int64_t pieces, Body body, int64_t total);

  template <typename T>
  T* Allocate(int64_t count) const {
    return static_cast<T*>(host->Allocate(static_cast<size_t>(count) * sizeof(T)));
  }

  // Scales the sums of one tile and `count` rows of A from `column` on, lanes[count][kTile], adds the bias and stores them.
  void Store(StoreRowsFn store, int64_t tile, int64_t column, int64_t count, const float* lanes) const;
};

// The tiles and blocks of one unit.
struct Unit {
  Unit(const Job& job, size_t i) {
    const int64_t tile_units = job.TileUnits(), at = static_cast<int64_t>(i);
    first_tile = at % tile_units * job.tiles_per_unit;
    last_tile = std::min(first_tile + job.tiles_per_unit, job.w->tiles);
    first_block = at / tile_units * job.blocks_per_unit;
    last_block = std::min(first_block + job.blocks_per_unit, job.blocks);
    first_column = first_block * job.columns;
    columns = std::min(last_block * job.columns, job.call->batch) - first_column;
  }

  int64_t first_tile, last_tile, first_block, last_block, first_column, columns;
};

inline constexpr int64_t kLookupTiles = 8;  // of a weight for RunLookup, at least: fewer do not repay the tables

Outcome RunDecoded(const Job& common, DecodeFn decode);
// parts as in LookupBuildFn and PanelQuantizeFn.
Outcome RunLookup(const Job& common, int parts);
Outcome RunPanel(const Job& common, int parts);

}  // namespace cosetq

#endif  // COSETQ_CPU_LINEAR_JOB_H_
