#include "linear.h"

#include <algorithm>
#include <cstring>

#include "activations.h"

namespace cosetq {
namespace {

constexpr int64_t kMaxBlocks =
    32;                            // blocks of activation columns that share one decoding of a tile
constexpr int64_t kMinBlocks = 4;  // fewer are not worth decoding a tile again on another thread
constexpr int64_t kManyUnits = 16;  // enough pieces of work for the threads to finish together
constexpr int64_t kSerialWork = 1 << 18;  // products below this stay on the calling thread
constexpr int64_t kUnitWork = 1 << 16;    // products worth handing to a thread
constexpr int64_t kDecodeWork = 8;   // decoding a weight costs about as much as this many products
constexpr int64_t kLookupBatch = 3;  // larger batches decode
constexpr int64_t kLookupTiles = 8;  // fewer do not repay the tables
constexpr int64_t kLookupUnit = 4;   // tiles that share the tables in the first-level cache
constexpr int64_t kLookupPairs = 4;  // pairs of groups whose tables fit there
constexpr int64_t kBuildPairs = 16;  // pairs of groups in one piece of table building

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Job {
  const WeightView* w;
  const Kernels* kernels;
  const LinearCall* call;
  DecodeFn decode;
  float* packed;
  float* row;  // one row of floats per block, for half-precision activations
  int64_t blocks;
  int64_t blocks_per_unit;
  int64_t tiles_per_unit;
  uint8_t* tables;
  float* steps;
  int64_t pairs;

  float* Packed(int64_t block) const { return packed + block * kColumns * PackedDepth(*w); }
  int64_t Columns(int64_t block) const {
    return std::min<int64_t>(kColumns, call->batch - block * kColumns);
  }
  int64_t TileUnits() const { return CeilDiv(w->tiles, tiles_per_unit); }
};

// Runs body on the pool, or here when the work is small.
bool Run(Host* host, bool serial, void (*body)(void*, size_t), int64_t total, Job* job) {
  if (!serial && total > 1) return host->ParallelFor(body, static_cast<size_t>(total), job);
  for (int64_t i = 0; i < total; ++i) body(job, static_cast<size_t>(i));
  return true;
}

// Scales the sums of one row of A and one tile, adds the bias and stores them.
void Store(const Job& job, int64_t tile, int64_t column, const float* sums) {
  const WeightView& w = *job.w;
  const int64_t first = tile * w.tile;
  const int64_t count = std::min<int64_t>(w.tile, w.rows - first);
  float out[kTile];
  for (int64_t r = 0; r < count; ++r) out[r] = sums[r] * w.row_scales[first + r];
  if (w.bias != nullptr) {
    for (int64_t r = 0; r < count; ++r) out[r] += w.bias[first + r];
  }
  const int64_t at = column * w.rows + first;
  if (job.call->y != nullptr) {
    std::memcpy(job.call->y + at, out, static_cast<size_t>(count) * sizeof(float));
  } else {
    job.kernels->to_half(out, job.call->y_half + at, count);
  }
}

void PackUnit(void* data, size_t i) {
  const Job& job = *static_cast<const Job*>(data);
  const int64_t block = static_cast<int64_t>(i);
  float* row = job.row == nullptr ? nullptr : job.row + block * job.w->cols;
  PackBlock(*job.w, *job.kernels, *job.call, block * kColumns, job.Columns(block), row,
            job.Packed(block));
}

// Decodes some tiles a slice of columns at a time and multiplies every slice with some blocks of
// activations.
void MultiplyUnit(void* data, size_t i) {
  const Job& job = *static_cast<const Job*>(data);
  const WeightView& w = *job.w;
  alignas(64) float panel[kDepthGroups * kGroup * kTile];
  alignas(64) float sums[kMaxBlocks * kColumns * kTile];
  const int64_t tile_units = job.TileUnits();
  const int64_t first_tile = static_cast<int64_t>(i) % tile_units * job.tiles_per_unit;
  const int64_t last_tile = std::min(first_tile + job.tiles_per_unit, w.tiles);
  const int64_t first_block = static_cast<int64_t>(i) / tile_units * job.blocks_per_unit;
  const int64_t last_block = std::min(first_block + job.blocks_per_unit, job.blocks);
  const int64_t first_column = first_block * kColumns;
  const int64_t columns = std::min(last_block * kColumns, job.call->batch) - first_column;
  for (int64_t tile = first_tile; tile < last_tile; ++tile) {
    std::memset(sums, 0, static_cast<size_t>(columns * kTile) * sizeof(float));
    for (int64_t g = 0; g < w.groups; g += kDepthGroups) {
      const int64_t groups = std::min<int64_t>(kDepthGroups, w.groups - g);
      job.decode(w, tile, g, groups, panel);
      for (int64_t b = first_block; b < last_block; ++b) {
        const int64_t count = job.Columns(b);
        job.kernels->multiply(panel, job.Packed(b) + g * kGroup * count, groups * kGroup,
                              static_cast<int>(count), w.tile,
                              sums + (b - first_block) * kColumns * kTile);
      }
    }
    for (int64_t c = 0; c < columns; ++c) Store(job, tile, first_column + c, sums + c * kTile);
  }
}

Outcome RunDecoded(Job* job, Host* host, bool serial) {
  const WeightView& w = *job->w;
  // Blocks are spread over units only as far as the tiles alone do not give enough of them.
  const int64_t wanted = std::max(CeilDiv(job->blocks, kMaxBlocks), CeilDiv(kManyUnits, w.tiles));
  const int64_t most =
      std::max<int64_t>(CeilDiv(job->blocks, kMaxBlocks), job->blocks / kMinBlocks);
  job->blocks_per_unit = CeilDiv(job->blocks, std::max<int64_t>(1, std::min(wanted, most)));
  const int64_t tile_work =
      w.tile * w.groups * kGroup * (job->blocks_per_unit * kColumns + kDecodeWork);
  job->tiles_per_unit = std::max<int64_t>(1, kUnitWork / tile_work);
  if (!Run(host, serial, PackUnit, job->blocks, job)) return Outcome::kNoThreads;
  const int64_t units = job->TileUnits() * CeilDiv(job->blocks, job->blocks_per_unit);
  return Run(host, serial, MultiplyUnit, units, job) ? Outcome::kDone : Outcome::kNoThreads;
}

void BuildUnit(void* data, size_t i) {
  const Job& job = *static_cast<const Job*>(data);
  const int64_t units = CeilDiv(job.pairs, kBuildPairs);
  const int64_t column = static_cast<int64_t>(i) / units;
  const int64_t pair = static_cast<int64_t>(i) % units * kBuildPairs;
  const int64_t at = column * job.pairs + pair;
  job.kernels->lookup_build(*job.w, job.packed + column * PackedDepth(*job.w), pair,
                            std::min(kBuildPairs, job.pairs - pair),
                            job.tables + at * PairTableBytes(*job.w), job.steps + at);
}

void LookupUnit(void* data, size_t i) {
  const Job& job = *static_cast<const Job*>(data);
  const WeightView& w = *job.w;
  alignas(64) float lanes[kLookupUnit][kLookupBatch][kTile] = {};
  const int64_t first = static_cast<int64_t>(i) * job.tiles_per_unit;
  const int64_t tiles = std::min(job.tiles_per_unit, w.tiles - first);
  for (int64_t pair = 0; pair < job.pairs; pair += kLookupPairs) {
    const int64_t count = std::min(kLookupPairs, job.pairs - pair);
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
      job.kernels->lookup_rows(lanes[t][column], sums);
      Store(job, first + t, column, sums);
    }
  }
}

Outcome RunLookup(Job* job, Host* host, bool serial) {
  const WeightView& w = *job->w;
  const int64_t batch = job->call->batch;
  job->pairs = PackedDepth(w) / (2 * kGroup);
  job->tables = static_cast<uint8_t*>(
      host->Allocate(static_cast<size_t>(batch * job->pairs * PairTableBytes(w))));
  job->steps =
      static_cast<float*>(host->Allocate(static_cast<size_t>(batch * job->pairs) * sizeof(float)));
  if (job->tables == nullptr || job->steps == nullptr) return Outcome::kNoMemory;
  for (int64_t c = 0; c < batch; ++c) {
    PackBlock(w, *job->kernels, *job->call, c, 1, job->row, job->packed + c * PackedDepth(w));
  }
  job->tiles_per_unit = std::min(kLookupUnit, std::max<int64_t>(1, w.tiles / kManyUnits));
  if (!Run(host, serial, BuildUnit, batch * CeilDiv(job->pairs, kBuildPairs), job))
    return Outcome::kNoThreads;
  return Run(host, serial, LookupUnit, job->TileUnits(), job) ? Outcome::kDone
                                                              : Outcome::kNoThreads;
}

}  // namespace

Path ChoosePath(const WeightView& w, const Kernels& kernels, int64_t batch) {
  if (w.form == Form::kGeneral) return Path::kGeneral;
  const bool one_table = w.form != Form::kTwoByte || w.tables->shared;
  const bool gains = w.gains == nullptr || w.tables->integer_gains;
  const bool worth = batch <= kLookupBatch && w.tiles >= kLookupTiles;
  return kernels.lookup != nullptr && one_table && gains && worth ? Path::kLookup : Path::kD4;
}

Outcome RunLinear(const Weight& weight, const Kernels& kernels, const LinearCall& call,
                  Host* host) {
  const WeightView& w = weight.view();
  if (call.batch == 0) return Outcome::kDone;
  const Path path = ChoosePath(w, kernels, call.batch);
  Job job = {};
  job.w = &w;
  job.kernels = &kernels;
  job.call = &call;
  job.decode = path == Path::kGeneral ? kernels.decode : kernels.decode_d4;
  job.blocks = CeilDiv(call.batch, kColumns);
  job.packed = static_cast<float*>(
      host->Allocate(static_cast<size_t>(PackedDepth(w) * call.batch) * sizeof(float)));
  if (job.packed == nullptr) return Outcome::kNoMemory;
  if (call.a == nullptr) {
    job.row = static_cast<float*>(
        host->Allocate(static_cast<size_t>(job.blocks * w.cols) * sizeof(float)));
    if (job.row == nullptr) return Outcome::kNoMemory;
  }
  CountCall(kernels.name, path);
  const bool serial = w.rows * w.cols < kSerialWork / (call.batch + kDecodeWork);
  return path == Path::kLookup ? RunLookup(&job, host, serial) : RunDecoded(&job, host, serial);
}

}  // namespace cosetq
