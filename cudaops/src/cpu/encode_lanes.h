// The encoder, one group per lane: every gain from the largest, the blocks that overload gathered
// and clamped together. The file that includes this has defined the words for vectors (see
// encode_vectors.h) and Digits (see encode_digits.h).

#ifndef COSETQ_CPU_ENCODE_LANES_H_
#define COSETQ_CPU_ENCODE_LANES_H_

#include <string.h>

#include "encode_columns.h"

namespace cosetq {
namespace {

// Groups that are coded together: enough that the blocks to clamp fill whole vectors, few enough
// for the second-level cache.
constexpr int kChunkGroups = 1024;
constexpr int kTiles = kChunkGroups / kLanes;
constexpr int kChunkBlocks = kChunkGroups * kEncodeBlocks;

// A block with one gain: its squared error and its classes, and its point if it was clamped. The
// blocks of a tile stand one lane each, the first block of every group before the second.
struct Blocks {
  alignas(64) float error[kChunkBlocks];
  alignas(64) uint32_t classes[kChunkBlocks];
  alignas(64) uint32_t point[kChunkBlocks];
};

// Blocks to clamp. Every array takes one vector more than its count says.
struct Queue {
  static constexpr int kRoom = kChunkBlocks + kLanes;
  int count = 0;
  alignas(64) float y[kEncodeDim][kRoom];
  alignas(64) uint32_t point[kRoom];
  alignas(64) uint32_t classes[kRoom];
  alignas(64) uint32_t block[kRoom];  // place in Blocks

  // Adds lanes of the blocks at place and after.
  void Push(const F from[kEncodeDim], M lanes, int place) {
    if (Bits(lanes) == 0) return;
    for (int j = 0; j < kEncodeDim; ++j) Pack(lanes, AsInt(from[j]), y[j] + count);
    Pack(lanes, Lane() + SplatInt(static_cast<uint32_t>(place)), block + count);
    count += __builtin_popcount(Bits(lanes));
  }

  // Codes all blocks, and empties the queue.
  void Clamp(const EncoderView& codec, Blocks* out) {
    for (int first = 0; first < count; first += kLanes) {
      Clamped c = At(first);
      c.FollowRay(codec, Used(first));
      memcpy(point + first, &c.point, sizeof(U));
      memcpy(classes + first, &c.classes, sizeof(U));
    }
    // Those that move stay in the queue for another round, one after the other.
    for (int moves = 0; count > 0; ++moves) {
      int kept = 0;
      for (int first = 0; first < count; first += kLanes) {
        Clamped c = At(first);
        const U place = Load<U>(block + first);
        const M used = Used(first);
        F r[kEncodeDim];
        const F error = c.Measure(r);
        const M moved = moves == codec.max_refinements ? kNone : c.Refine(codec, used, r);
        Finish(used & ~moved, place, error, c, out);
        for (int j = 0; j < kEncodeDim; ++j) Pack(moved, AsInt(c.y[j]), y[j] + kept);
        Pack(moved, c.point, point + kept);
        Pack(moved, c.classes, classes + kept);
        Pack(moved, place, block + kept);
        kept += __builtin_popcount(Bits(moved));
      }
      count = kept;
    }
  }

 private:
  Clamped At(int first) const {
    Clamped c;
    for (int j = 0; j < kEncodeDim; ++j) c.y[j] = Load<F>(y[j] + first);
    c.point = Load<U>(point + first);
    c.classes = Load<U>(classes + first);
    return c;
  }

  M Used(int first) const { return FirstLanes(count - first < kLanes ? count - first : kLanes); }

  static void Finish(M lanes, U place, F error, const Clamped& c, Blocks* out) {
    for (uint32_t bits = Bits(lanes); bits != 0; bits &= bits - 1) {
      const int lane = __builtin_ctz(bits);
      out->error[place[lane]] = error[lane];
      out->classes[place[lane]] = c.classes[lane];
      out->point[place[lane]] = c.point[lane];
    }
  }
};

// A tile holds up to kLanes groups. Groups are numbered through all items of the work.
struct Tile {
  F x[schema::kGroup];
  F reciprocal;   // of the steps
  int64_t first;  // group
  int32_t used;   // groups
  M active;       // groups that still try gains
  U overloads;    // gains that overloaded
  F best;         // error
  U gain;
  U classes[kEncodeBlocks];
};

struct Chunk {
  int count = 0;
  Tile tiles[kTiles];
  Queue queue;
  Blocks blocks;
};

// What a gain does to the groups of a tile.
struct Trial {
  M overload;
  M hopeless;  // overloading groups that cannot be better than what they have
};

// Codes all blocks of the tiles t and t + 1 with one gain, and queues those to clamp.
inline void TryGain(const EncoderView& codec, Chunk* chunk, int t, float gain, Trial trial[2]) {
  const Tile* tiles = chunk->tiles + t;
  trial[0] = trial[1] = {kNone, kNone};
  if (Bits(tiles[0].active | tiles[1].active) == 0) return;
  F y[kWide][kEncodeDim], error[kWide];
  U point[kWide], classes[kWide];
  M beyond[kWide], inside[kWide];
  const F inverse[2] = {tiles[0].reciprocal / Splat(gain), tiles[1].reciprocal / Splat(gain)};
  for (int i = 0; i < kWide; ++i) {
    const int k = i / kEncodeBlocks;
    const F* x = tiles[k].x + i % kEncodeBlocks * kEncodeDim;
    F largest = {};
    for (int j = 0; j < kEncodeDim; ++j) {
      y[i][j] = x[j] * inverse[k] + Splat(codec.centre[j]);
      largest = Max(largest, Abs(y[i][j]));
    }
    // So far out, the nearest point is certainly not in the code, nor a match for the bound.
    beyond[i] = Ge(largest, Splat(codec.reach_one + 2));
    point[i] = Nearest(y[i], &error[i]);
    error[i] = Select(beyond[i], F{}, error[i]);
  }
  Digits(codec, point, classes, inside);
  memcpy(chunk->blocks.error + t * kEncodeBlocks * kLanes, error, sizeof error);
  memcpy(chunk->blocks.classes + t * kEncodeBlocks * kLanes, classes, sizeof classes);
  for (int k = 0; k < 2; ++k) {
    M outside[kEncodeBlocks];
    for (int b = 0; b < kEncodeBlocks; ++b) {
      const int i = k * kEncodeBlocks + b;
      outside[b] = tiles[k].active & (beyond[i] | ~inside[i]);
    }
    trial[k].overload = outside[0] | outside[1];
    if (Bits(trial[k].overload) == 0) continue;
    F bound = {};
    for (int b = 0; b < kEncodeBlocks; ++b) {
      const int i = k * kEncodeBlocks + b;
      // The specification knows of the first alone, and of a weaker second: they save work and never change a choice.
      if (Bits(outside[b]) == 0) {
        bound += error[i];
        continue;
      }
      const F second = Select(beyond[i], F{}, SecondNearest(y[i], point[i], error[i]));
      bound += Select(outside[b], Max(Max(error[i], Bound(codec.hull, y[i])), second), error[i]);
    }
    trial[k].hopeless = trial[k].overload & Gt(Splat(gain * gain) * bound, tiles[k].best);
    for (int b = 0; b < kEncodeBlocks; ++b) {
      const int i = k * kEncodeBlocks + b;
      chunk->queue.Push(y[i], outside[b] & ~trial[k].hopeless, (t * kEncodeBlocks + i) * kLanes);
    }
  }
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

// Codes a tile of groups of runs with every gain.
inline void EncodeRuns(const EncoderView& codec, Tile* tile) {
  for (int g = codec.gain_count - 1; g >= 0 && Bits(tile->active) != 0; --g) {
    const float gain = codec.gains[g];
    U classes;
    M outside;
    const F sum = EncodeRuns(codec, tile->x, tile->reciprocal / Splat(gain), &classes, &outside);
    const F error = Splat(gain * gain) * sum;
    const M better = tile->active & Ge(tile->best, error);
    tile->best = Select(better, error, tile->best);
    tile->gain = Select(better, SplatInt(static_cast<uint32_t>(g)), tile->gain);
    tile->classes[0] = Select(better, classes, tile->classes[0]);
    tile->overloads += Select(outside, SplatInt(1), U{});
    const U limit = SplatInt(static_cast<uint32_t>(codec.max_overloads));
    tile->active = tile->active & ~Eq(tile->overloads, limit);
  }
}

inline void EncodeChunk(const EncoderView& codec, Chunk* chunk) {
  if (codec.dim == 1) {
    for (int t = 0; t < chunk->count; ++t) EncodeRuns(codec, chunk->tiles + t);
    return;
  }
  Trial trials[kTiles];
  if (chunk->count % 2 != 0) chunk->tiles[chunk->count] = Tile{};
  for (int g = codec.gain_count - 1; g >= 0; --g) {
    const float gain = codec.gains[g];
    for (int t = 0; t < chunk->count; t += 2) TryGain(codec, chunk, t, gain, trials + t);
    chunk->queue.Clamp(codec, &chunk->blocks);
    for (int t = 0; t < chunk->count; ++t) {
      Tile& tile = chunk->tiles[t];
      TakeGain(chunk->blocks, t, gain, g, trials[t].hopeless, &tile);
      tile.overloads += Select(trials[t].overload, SplatInt(1), U{});
      const U limit = SplatInt(static_cast<uint32_t>(codec.max_overloads));
      tile.active = tile.active & ~Eq(tile.overloads, limit);
    }
  }
}

// Walks through the groups of the work, item by item.
struct Position {
  int64_t item = 0, group = 0;

  // Passes up to limit groups of the item at hand. Returns how many.
  int32_t Pass(const EncodeWork& work, int32_t limit) {
    const int64_t left = work.groups - group;
    if (left > limit) {
      group += limit;
      return limit;
    }
    group = 0;
    ++item;
    return static_cast<int32_t>(left);
  }
};

inline void LoadGroups(const EncodeWork& work, Position* position, Tile* tile) {
  alignas(64) float groups[kLanes * schema::kGroup];
  alignas(64) float reciprocal[kLanes];
  if (tile->used < kLanes) {
    memset(groups, 0, sizeof groups);
    memset(reciprocal, 0, sizeof reciprocal);
  }
  for (int32_t lane = 0; lane < tile->used;) {
    const Position at = *position;
    const int32_t count = position->Pass(work, tile->used - lane);
    const int64_t row = work.at == nullptr ? at.item : work.at[at.item];
    memcpy(groups + lane * schema::kGroup,
           work.rows + (row * work.groups + at.group) * schema::kGroup,
           sizeof(float) * schema::kGroup * static_cast<size_t>(count));
    for (int32_t end = lane + count; lane < end; ++lane) reciprocal[lane] = 1 / work.steps[at.item];
  }
  LoadTile(groups, tile->x);
  tile->reciprocal = Load<F>(reciprocal);
  tile->active = FirstLanes(tile->used);
  tile->overloads = tile->gain = tile->classes[0] = tile->classes[1] = U{};
  tile->best = Splat(__builtin_inff());
}

// Adds the errors of a tile in the order of the groups, and keeps its codes if they are asked for.
inline void StoreGroups(const EncoderView& codec, const EncodeWork& work, const Tile& tile,
                        Position* position) {
  for (int32_t lane = 0; lane < tile.used;) {
    const int64_t item = position->item;
    double sse = work.sse[item];
    for (int32_t end = lane + position->Pass(work, tile.used - lane); lane < end; ++lane)
      sse += static_cast<double>(tile.best[lane]);
    work.sse[item] = sse;
  }
  if (work.indices == nullptr) return;
  uint16_t* out = work.indices + tile.first * EncodeSlots(codec);
  for (int32_t lane = 0; lane < tile.used; ++lane)
    work.gains[tile.first + lane] = static_cast<uint8_t>(tile.gain[lane]);
  if (codec.dim == 1) {
    for (int32_t lane = 0; lane < tile.used; ++lane, out += schema::kGroup) StoreRuns(tile.classes[0][lane], out);
    return;
  }
  static_assert(kEncodeBlocks == 2);
  U both[kEncodeLevels];  // the classes of a level, of the first block in the low half
  for (int m = 0; m < codec.levels; ++m)
    both[m] = (tile.classes[0] >> (8 * m) & 0xffu) | (tile.classes[1] >> (8 * m) & 0xffu) << 16;
  for (int32_t lane = 0; lane < tile.used; ++lane) {
    for (int m = 0; m < codec.levels; ++m, out += kEncodeBlocks) {
      const uint32_t words = both[m][lane];
      memcpy(out, &words, sizeof words);
    }
  }
}

void Encode(const EncoderView& codec, const EncodeWork& work) {
  Chunk chunk;
  Position read, written;
  for (int64_t i = 0; i < work.count; ++i) work.sse[i] = 0;
  const int64_t total = work.count * work.groups;
  for (int64_t first = 0; first < total; first += kLanes) {
    Tile& tile = chunk.tiles[chunk.count++];
    tile.first = first;
    tile.used = static_cast<int32_t>(total - first < kLanes ? total - first : kLanes);
    LoadGroups(work, &read, &tile);
    if (chunk.count < kTiles && first + kLanes < total) continue;
    EncodeChunk(codec, &chunk);
    for (int t = 0; t < chunk.count; ++t) StoreGroups(codec, work, chunk.tiles[t], &written);
    chunk.count = 0;
  }
  for (int64_t i = 0; i < work.count; ++i) {
    const double step = static_cast<double>(work.steps[i]);
    work.sse[i] = work.sse[i] * step * step;
  }
}

}  // namespace
}  // namespace cosetq

#endif  // COSETQ_CPU_ENCODE_LANES_H_
