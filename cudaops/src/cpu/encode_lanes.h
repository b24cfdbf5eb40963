// The encoder, one group per lane: every gain from the largest, the blocks that overload gathered and clamped together.
// The file that includes this has defined the vectors (see encode_vectors.h).

#ifndef COSETQ_CPU_ENCODE_LANES_H_
#define COSETQ_CPU_ENCODE_LANES_H_

#include <string.h>

#include "encode_block.h"

namespace cosetq {
namespace {

// Groups that are coded together: enough that the blocks to clamp fill whole vectors, few enough
// for the first-level cache.
constexpr int kChunkGroups = 128;
constexpr int kTiles = kChunkGroups / kLanes;
constexpr int kChunkBlocks = kChunkGroups * kEncodeBlocks;

// A block with one gain: its squared error and its classes. The blocks of a tile stand one lane
// each, the first block of every group before the second.
struct Blocks {
  alignas(64) float error[kChunkBlocks];
  alignas(64) uint32_t classes[kChunkBlocks];
};

// Blocks that wait to be clamped.
struct Queue {
  int count = 0;
  alignas(64) float y[kEncodeDim][kChunkBlocks + kLanes];
  uint16_t block[kChunkBlocks];

  // Adds the lanes of block vector v.
  void Push(const F point[kEncodeDim], M lanes, int v) {
    alignas(64) float from[kEncodeDim][kLanes];
    memcpy(from, point, sizeof from);
    for (uint32_t bits = Bits(lanes); bits != 0; bits &= bits - 1) {
      const int lane = __builtin_ctz(bits);
      for (int j = 0; j < kEncodeDim; ++j) y[j][count] = from[j][lane];
      block[count++] = static_cast<uint16_t>(v * kLanes + lane);
    }
  }

  void Clamp(const EncoderView& codec, Blocks* out) {
    for (int first = 0; first < count; first += kLanes) {
      const int used = count - first < kLanes ? count - first : kLanes;
      F point[kEncodeDim];
      for (int j = 0; j < kEncodeDim; ++j) point[j] = Load<F>(y[j] + first);
      U classes;
      F error;
      cosetq::Clamp(codec, point, FromBits((1u << used) - 1), &classes, &error);
      for (int lane = 0; lane < used; ++lane) {
        out->error[block[first + lane]] = error[lane];
        out->classes[block[first + lane]] = classes[lane];
      }
    }
    count = 0;
  }
};

// A tile holds up to kLanes groups of one row.
struct Tile {
  F x[schema::kGroup];
  float reciprocal;  // of the step
  int32_t used;      // groups
  int64_t item, first;  // of the work, and the first group
  M active;          // groups that still try gains
  U overloads;       // gains that overloaded
  F best;            // error
  U gain;
  U classes[kEncodeBlocks];
};

struct Chunk {
  int count = 0;
  Tile tiles[kTiles];
  Queue queue;
  Blocks blocks;
};

// Codes all blocks of a tile with one gain and queues those to clamp. Returns the groups that
// overload, and those that cannot be better than what they have.
inline M TryGain(const EncoderView& codec, Chunk* chunk, int t, float gain, M* hopeless) {
  const Tile& tile = chunk->tiles[t];
  *hopeless = kNone;
  if (Bits(tile.active) == 0) return kNone;
  const F inverse = Splat(tile.reciprocal / gain);
  F y[kEncodeBlocks][kEncodeDim], error[kEncodeBlocks];
  M outside[kEncodeBlocks];
  for (int b = 0; b < kEncodeBlocks; ++b) {
    F largest = {};
    for (int j = 0; j < kEncodeDim; ++j) {
      y[b][j] = tile.x[kEncodeDim * b + j] * inverse + Splat(codec.centre[j]);
      largest = Max(largest, Abs(y[b][j]));
    }
    // So far out, the nearest point is certainly not in the code, nor a match for the bound.
    const M beyond = Ge(largest, Splat(codec.reach_one + 2));
    U classes;
    const M inside = Digits(codec, Nearest(y[b], &error[b]), &classes);
    outside[b] = tile.active & (beyond | ~inside);
    error[b] = Select(beyond, F{}, error[b]);
    const int v = (t * kEncodeBlocks + b) * kLanes;
    memcpy(chunk->blocks.error + v, &error[b], sizeof(F));
    memcpy(chunk->blocks.classes + v, &classes, sizeof(U));
  }
  const M overload = outside[0] | outside[1];
  if (Bits(overload) == 0) return overload;
  for (int b = 0; b < kEncodeBlocks; ++b)
    error[b] = Select(outside[b], Max(error[b], Bound(codec, y[b])), error[b]);
  *hopeless = overload & Gt(Splat(gain * gain) * (error[0] + error[1]), tile.best);
  for (int b = 0; b < kEncodeBlocks; ++b)
    chunk->queue.Push(y[b], outside[b] & ~*hopeless, t * kEncodeBlocks + b);
  return overload;
}

// Takes the gain for the groups of a tile where it is not worse.
inline void TakeGain(const Blocks& blocks, int t, float gain, int index, M hopeless, Tile* tile) {
  const int v = t * kEncodeBlocks * kLanes;
  const F sum = Load<F>(blocks.error + v) + Load<F>(blocks.error + v + kLanes);
  const F error = Splat(gain * gain) * sum;
  const M better = tile->active & ~hopeless & Ge(tile->best, error);
  tile->best = Select(better, error, tile->best);
  tile->gain = Select(better, SplatInt(static_cast<uint32_t>(index)), tile->gain);
  for (int b = 0; b < kEncodeBlocks; ++b)
    tile->classes[b] =
        Select(better, Load<U>(blocks.classes + v + b * kLanes), tile->classes[b]);
}

inline void EncodeChunk(const EncoderView& codec, Chunk* chunk) {
  M overload[kTiles], hopeless[kTiles];
  for (int g = codec.gain_count - 1; g >= 0; --g) {
    const float gain = codec.gains[g];
    for (int t = 0; t < chunk->count; ++t)
      overload[t] = TryGain(codec, chunk, t, gain, &hopeless[t]);
    chunk->queue.Clamp(codec, &chunk->blocks);
    for (int t = 0; t < chunk->count; ++t) {
      Tile& tile = chunk->tiles[t];
      TakeGain(chunk->blocks, t, gain, g, hopeless[t], &tile);
      tile.overloads += Select(overload[t], SplatInt(1), U{});
      const U limit = SplatInt(static_cast<uint32_t>(codec.max_overloads));
      tile.active = tile.active & ~Eq(tile.overloads, limit);
    }
  }
}

// Adds the errors of a tile in the order of the groups, and keeps its codes if they are asked for.
inline void StoreTile(const EncoderView& codec, const EncodeWork& work, const Tile& tile) {
  double sse = work.sse[tile.item];
  for (int i = 0; i < tile.used; ++i) sse += static_cast<double>(tile.best[i]);
  work.sse[tile.item] = sse;
  if (work.indices == nullptr) return;
  const int64_t group = tile.item * work.groups + tile.first;
  uint16_t* out = work.indices + group * codec.levels * kEncodeBlocks;
  for (int i = 0; i < tile.used; ++i) {
    work.gains[group + i] = static_cast<uint8_t>(tile.gain[i]);
    for (int m = 0; m < codec.levels; ++m) {
      for (int b = 0; b < kEncodeBlocks; ++b)
        *out++ = static_cast<uint16_t>(tile.classes[b][i] >> (8 * m) & 0xff);
    }
  }
}

inline void Flush(const EncoderView& codec, const EncodeWork& work, Chunk* chunk) {
  EncodeChunk(codec, chunk);
  for (int t = 0; t < chunk->count; ++t) StoreTile(codec, work, chunk->tiles[t]);
  chunk->count = 0;
}

void Encode(const EncoderView& codec, const EncodeWork& work) {
  Chunk chunk;
  for (int64_t i = 0; i < work.count; ++i) {
    work.sse[i] = 0;
    const float* row = work.rows + (work.at == nullptr ? i : work.at[i]) * work.groups * schema::kGroup;
    for (int64_t first = 0; first < work.groups; first += kLanes) {
      Tile& tile = chunk.tiles[chunk.count++];
      const int64_t left = work.groups - first;
      tile.used = static_cast<int32_t>(left < kLanes ? left : kLanes);
      const float* groups = row + first * schema::kGroup;
      float padded[kLanes * schema::kGroup] = {};
      if (left < kLanes) {
        memcpy(padded, groups, sizeof(float) * schema::kGroup * static_cast<size_t>(left));
        groups = padded;
      }
      LoadTile(groups, tile.x);
      tile.reciprocal = 1 / work.steps[i];
      tile.item = i;
      tile.first = first;
      tile.active = FromBits((1u << tile.used) - 1);
      tile.overloads = U{};
      tile.best = Splat(__builtin_inff());
      tile.gain = U{};
      tile.classes[0] = tile.classes[1] = U{};
      if (chunk.count == kTiles) Flush(codec, work, &chunk);
    }
  }
  if (chunk.count > 0) Flush(codec, work, &chunk);
  for (int64_t i = 0; i < work.count; ++i) {
    const double step = static_cast<double>(work.steps[i]);
    work.sse[i] = work.sse[i] * step * step;
  }
}

}  // namespace
}  // namespace cosetq

#endif  // COSETQ_CPU_ENCODE_LANES_H_
