// How the tiles of a product are dealt to the blocks that multiply them.

#ifndef COSETQ_CUDA_TILES_CUH_
#define COSETQ_CUDA_TILES_CUH_

#include "pipeline.cuh"
#include "views.h"

namespace cosetq::cuda {

// A tile is 128 rows of the weight by some rows of activations, the columns of its product. Either every tile is shared by a
// cluster of blocks, each with a part of the columns of the weight. Or blocks stay until all is done (stream-K): the first tiles, in
// chunks, are cut evenly among them, so that a tile may belong to several; of the others each block takes whole ones in turn.
// Divided tiles are 64 rows, and a block has one, or its part of one: each of its warp groups takes half of the columns of the weight.
struct WideCut {
  int columns;   // 64, 128 or 256; of divided tiles 64 or 128
  int splits;    // blocks of a cluster: 1, 2, 4 or 8
  int peers;     // blocks of a cluster that take the same columns of neighbouring rows, and fetch slices together: 1 or 2
  int blocks;    // of the grid
  int even;      // tiles that are cut evenly
  bool divided;
  bool lying;    // rows are fetched as they lie
};

// Chunks first ... last - 1 of a tile.
struct Segment {
  int tile, first, last;
};

// The segments of a block. Of the tiles cut evenly the last comes first, so that a block that begins a tile has done its part
// long before the next block, which finishes it, wants the sums.
class Segments {
 public:
  __device__ __forceinline__ Segments(const WideCut& cut, int tiles, int chunks) : tiles_(tiles), chunks_(chunks) {
    if (cut.splits > 1) {
      const int rank = ClusterRank(), begin = static_cast<int>(blockIdx.x) / cut.splits * chunks;
      first_ = begin + Part(chunks, rank, cut.splits);
      last_ = begin + Part(chunks, rank + 1, cut.splits);
      dealt_ = tiles;
    } else {
      const int team = static_cast<int>(blockIdx.x) / cut.peers;
      teams_ = cut.blocks / cut.peers;
      first_ = First(cut, chunks, team);
      last_ = First(cut, chunks, team + 1);
      dealt_ = cut.even + team;
    }
  }

  // Where the part of a block begins of the tiles cut evenly, in chunks.
  __device__ __forceinline__ static int First(const WideCut& cut, int chunks, int team) {
    return Part(cut.even * chunks, team, cut.blocks / cut.peers);
  }

  // False if there is no further one.
  __device__ __forceinline__ bool Next(Segment& s) {
    if (first_ < last_) {
      s.tile = (last_ - 1) / chunks_;
      const int begin = s.tile * chunks_;
      s.first = max(first_ - begin, 0);
      s.last = last_ - begin;
      last_ = begin + s.first;
      return true;
    }
    if (dealt_ >= tiles_) return false;
    s = {dealt_, 0, chunks_};
    dealt_ += teams_;
    return true;
  }

 private:
  int tiles_, chunks_, teams_, first_, last_, dealt_;
};

// The place of a tile. Blocks that run at the same time share slices and panels in the second-level cache: they go through all
// rows for a few column tiles before the next.
struct TilePlace {
  int row_block, column_tile;

  __device__ __forceinline__ TilePlace(int tile, int row_blocks, int column_tiles) {
    constexpr int kTogether = 16;  // column tiles
    const int group = tile / (row_blocks * kTogether), first = group * kTogether;
    const int together = min(kTogether, column_tiles - first), place = tile - group * row_blocks * kTogether;
    column_tile = first + place % together;
    row_block = place / together;
  }
};

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_TILES_CUH_
