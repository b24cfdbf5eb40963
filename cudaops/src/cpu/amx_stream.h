// Up to 16 rows of A times a tile of weights, AMX: weights are multiplied while others are decoded,
// which takes longer. For files built with AMX only.
//
// Up to 8 rows, high and low bytes fit one tile register, and sums for all 64 rows of W the other
// ones: a block is multiplied two blocks after it was decoded. With more rows the sums of half of the
// rows of W fit, so a whole panel is decoded while the one before is multiplied, one half of its rows
// after the other: digits are looked up once.

#ifndef COSETQ_CPU_AMX_STREAM_H_
#define COSETQ_CPU_AMX_STREAM_H_

#include "avx512_decode.h"

namespace cosetq {
namespace {

constexpr int kTileRows = 16;          // of A
constexpr int64_t kTileRowBytes = 64;  // of a row of A in a tile: a block's columns
constexpr int kParts = 2;

// Both parts of so many rows of A fit one tile.
constexpr int64_t kFewRows = kTileRows / kParts;

// sums += scale * (256 * high + low) for 16 lanes.
inline ALWAYS_INLINE void AddSums(const int32_t* high, const int32_t* low, __m512 scale,
                                  float* sums) {
  const __m512 both =
      _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(high)), _mm512_set1_ps(256),
                      _mm512_cvtepi32_ps(_mm512_load_si512(low)));
  _mm512_store_ps(sums, _mm512_fmadd_ps(both, scale, _mm512_load_ps(sums)));
}

// After writing what is to be loaded into tiles: GCC 12's loads do not say that they read memory.
inline ALWAYS_INLINE void Written() { __asm__ volatile("" : : : "memory"); }

inline ALWAYS_INLINE void ZeroSums() {
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
}

// Decodes a tile of weights half a block at a time: the half'th of a block, whose place in its panel
// counts for the rests.
template <Form kForm, bool kWhole>
class StreamDecoder {
 public:
  StreamDecoder(const WeightView& w, int64_t tile) : w_(w), decoder_(w, tile, 0) {}

  ALWAYS_INLINE void Next(int half, int64_t place, uint8_t* block, uint8_t* rests) {
    const RestTiles tiles(w_, rests);
    decoder_.Next(
        [&](int s, int q, __m512i bytes)
            ALWAYS_INLINE { _mm512_store_si512(Step(block, half * kQuadSteps + s) + q, bytes); },
        [&](int q, __m512i gains) ALWAYS_INLINE { tiles.Store(kHalves * place + half, q, gains); });
  }

 private:
  const WeightView& w_;
  QuadDecoder<kForm, false, kWhole> decoder_;
};

// How many blocks after a block was decoded it is multiplied: its bytes have reached the cache by
// then.
constexpr int64_t kLag = 2;

// Blocks of a tile between decoding and multiplying, and the rests of two panels.
struct Stream {
  alignas(64) uint8_t blocks[kLag + 1][kTileBytes];
  alignas(64) uint8_t rests[2][kRestTiles * kTileBytes];
};

// Half of the rows of W; the activations are in tile 0.
template <int kHalf>
inline ALWAYS_INLINE void MultiplyHalf(const uint8_t* weights) {
  if constexpr (kHalf == 0) {
    _tile_loadd(1, weights, kStepBytes);
    _tile_dpbsud(4, 0, 1);
    _tile_loadd(2, weights + 64, kStepBytes);
    _tile_dpbsud(5, 0, 2);
  } else {
    _tile_loadd(3, weights + 128, kStepBytes);
    _tile_dpbsud(6, 0, 3);
    _tile_loadd(1, weights + 192, kStepBytes);
    _tile_dpbsud(7, 0, 1);
  }
}

inline void AddFewRows(const float* scales, int64_t columns, float* sums) {
  alignas(64) int32_t out[4][kTileRows][16];
  _tile_stored(4, out[0], 64);
  _tile_stored(5, out[1], 64);
  _tile_stored(6, out[2], 64);
  _tile_stored(7, out[3], 64);
  for (int64_t c = 0; c < columns; ++c) {
    const __m512 scale = _mm512_set1_ps(scales[c]);
    for (int q = 0; q < 4; ++q)
      AddSums(out[q][c], out[q][columns + c], scale, sums + c * kTile + 16 * q);
  }
}

// Up to kFewRows rows of A.
template <Form kForm, bool kWhole>
void StreamFewRows(const WeightView& w, int64_t tile, const uint8_t* a, const float* scales,
                   int64_t columns, float* sums) {
  Stream buffer;
  StreamDecoder<kForm, kWhole> decoder(w, tile);
  const int64_t depth = (w.groups + kBlockGroups - 1) / kBlockGroups;
  const int64_t a_bytes = kParts * columns * kTileRowBytes;
  const auto decode = [&](int half, int64_t block) ALWAYS_INLINE {
    decoder.Next(half, block % kTileBlocks, buffer.blocks[block % (kLag + 1)],
                 buffer.rests[block / kTileBlocks % 2]);
  };
  ZeroSums();
  for (int64_t next = 0; next < depth + kLag; ++next) {
    const int64_t b = next - kLag;
    const uint8_t* weights = buffer.blocks[(b + kLag + 1) % (kLag + 1)];
    if (next < depth && next % kTileBlocks == 0)
      RestTiles(w, buffer.rests[next / kTileBlocks % 2]).Clear(depth - next);
    if (next < depth) decode(0, next);
    Written();
    if (b >= 0) {
      _tile_loadd(0, a, kTileRowBytes);
      MultiplyHalf<0>(weights);
    }
    if (next < depth) decode(1, next);
    if (b < 0) continue;
    Written();
    MultiplyHalf<1>(weights);
    a += a_bytes;
    if (b + 1 < depth && (b + 1) % kTileBlocks != 0) continue;
    for (int i = 0; i < kRestTiles; ++i, a += a_bytes) {
      _tile_loadd(0, a, kTileRowBytes);
      const uint8_t* rests = buffer.rests[b / kTileBlocks % 2] + i * kTileBytes;
      MultiplyHalf<0>(rests);
      MultiplyHalf<1>(rests);
    }
    AddFewRows(scales, columns, sums);
    scales += kTileBlocks * columns;
    ZeroSums();
  }
}

// The decoded blocks of a panel and their rests.
struct StreamPanel {
  alignas(64) uint8_t tiles[kTileBlocks + kRestTiles][kTileBytes];
  uint8_t* rests() { return tiles[kTileBlocks]; }
};

// The products of a panel with up to kTileRows rows of A, a tile after the other, for half of the
// rows of W and then for the other half.
class PanelProducts {
 public:
  // a and scales are those of the panel.
  void Begin(const StreamPanel& panel, int64_t blocks, const uint8_t* a, const float* scales) {
    panel_ = &panel;
    blocks_ = blocks;
    a_ = a;
    scales_ = scales;
    half_ = at_ = 0;
  }

  static int64_t ABytes(int64_t blocks) { return (blocks + kRestTiles) * kATile; }

  // How many steps there are, of blocks to come from.
  static int64_t Steps(int64_t blocks) { return 2 * (blocks + kRestTiles); }

  // Takes a step, if there is one left.
  ALWAYS_INLINE void Step(int64_t columns, float* sums) {
    if (half_ == 2) return;
    if (at_ == 0) ZeroSums();
    const int64_t tile = at_ < blocks_ ? at_ : kTileBlocks + at_ - blocks_;
    const uint8_t* weights = panel_->tiles[tile] + 128 * half_;
    const uint8_t* a = a_ + at_ * kATile;
    _tile_loadd(0, a, kTileRowBytes);
    _tile_loadd(2, weights, kStepBytes);
    _tile_loadd(1, a + kATile / kParts, kTileRowBytes);
    _tile_dpbsud(4, 0, 2);
    _tile_loadd(3, weights + 64, kStepBytes);
    _tile_dpbsud(5, 1, 2);
    _tile_dpbsud(6, 0, 3);
    _tile_dpbsud(7, 1, 3);
    if (++at_ == blocks_ + kRestTiles) {
      AddTo(columns, sums + 32 * half_);
      at_ = 0;
      ++half_;
    }
  }

 private:
  static constexpr int64_t kATile = kParts * kTileRows * kTileRowBytes;

  void AddTo(int64_t columns, float* sums) const {
    alignas(64) int32_t out[2][kParts][kTileRows][16];
    _tile_stored(4, out[0][0], 64);
    _tile_stored(5, out[0][1], 64);
    _tile_stored(6, out[1][0], 64);
    _tile_stored(7, out[1][1], 64);
    for (int64_t c = 0; c < columns; ++c) {
      const __m512 scale = _mm512_set1_ps(scales_[c]);
      AddSums(out[0][0][c], out[0][1][c], scale, sums + c * kTile);
      AddSums(out[1][0][c], out[1][1][c], scale, sums + c * kTile + 16);
    }
  }

  const StreamPanel* panel_ = nullptr;
  const uint8_t* a_ = nullptr;
  const float* scales_ = nullptr;
  int64_t blocks_ = 0, at_ = 0;
  int half_ = 2;
};

// More rows of A, up to kTileRows.
template <Form kForm, bool kWhole>
void StreamTileRows(const WeightView& w, int64_t tile, const uint8_t* a, const float* scales,
                    int64_t columns, float* sums) {
  StreamPanel panels[2];
  StreamDecoder<kForm, kWhole> decoder(w, tile);
  PanelProducts products;
  const int64_t depth = (w.groups + kBlockGroups - 1) / kBlockGroups;
  int64_t left = 0;  // steps of the panel before
  for (int64_t first = 0; first < depth; first += kTileBlocks) {
    StreamPanel& panel = panels[first / kTileBlocks % 2];
    const int64_t blocks = depth - first < kTileBlocks ? depth - first : kTileBlocks;
    RestTiles(w, panel.rests()).Clear(blocks);
    for (int64_t b = 0; b < blocks; ++b) {
      for (int half = 0; half < kHalves; ++half) {
        decoder.Next(half, b, panel.tiles[b], panel.rests());
        Written();
        // The steps left, evenly over what is left to decode.
        const int64_t halves = kHalves * (blocks - b) - half;
        for (int64_t steps = (left + halves - 1) / halves; steps > 0; --steps, --left)
          products.Step(columns, sums);
      }
    }
    products.Begin(panel, blocks, a, scales);
    left = PanelProducts::Steps(blocks);
    a += PanelProducts::ABytes(blocks);
    scales += kTileBlocks * columns;
  }
  for (; left > 0; --left) products.Step(columns, sums);
}

template <Form kForm>
void StreamForm(const WeightView& w, int64_t tile, const uint8_t* a, const float* scales,
                int64_t columns, float* sums) {
  const bool whole = IsWhole(w);
  if (columns <= kFewRows) {
    const auto stream = whole ? StreamFewRows<kForm, true> : StreamFewRows<kForm, false>;
    return stream(w, tile, a, scales, columns, sums);
  }
  const auto stream = whole ? StreamTileRows<kForm, true> : StreamTileRows<kForm, false>;
  stream(w, tile, a, scales, columns, sums);
}

}  // namespace
}  // namespace cosetq

#endif  // COSETQ_CPU_AMX_STREAM_H_
