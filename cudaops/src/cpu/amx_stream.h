// Up to 16 rows of A times a tile of weights, AMX: a block of weights is multiplied while another
// is decoded, which takes longer. For files built with AMX only.
//
// Up to 8 rows, high and low bytes fit one tile register, and sums for all 64 rows of W the other
// ones. With more rows the sums of half of the rows of W fit, so codes are read twice: to keep whole
// decoded panels instead costs more in the first-level cache.

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

// How many blocks after a block was decoded it is multiplied: its bytes have reached the cache by
// then.
constexpr int64_t kLag = 2;

// Blocks of a tile between decoding and multiplying, of kQuarters quarters of its rows, and the
// rests of two panels.
template <int kQuarters>
struct Stream {
  static constexpr int64_t kStep = 64 * kQuarters, kBlock = kWeightSteps * kStep;
  alignas(64) uint8_t blocks[kLag + 1][kBlock];
  alignas(64) uint8_t rests[2][kRestTiles * kBlock];
};

// What is decoded of a tile, half a block at a time.
template <Form kForm, bool kWhole, int kFirst, int kQuarters>
class StreamDecoder {
 public:
  StreamDecoder(const WeightView& w, int64_t tile) : w_(w), decoder_(w, tile, 0) {}

  ALWAYS_INLINE void Next(int half, int64_t place, uint8_t* block, uint8_t* rests) {
    using Buffer = Stream<kQuarters>;
    const RestTiles tiles(w_, rests);
    decoder_.Next(
        [&](int s, int q, __m512i bytes) ALWAYS_INLINE {
          _mm512_store_si512(block + (half * kQuadSteps + s) * Buffer::kStep + 64 * q, bytes);
        },
        [&](int q, __m512i gains) ALWAYS_INLINE {
          tiles.Store(kHalves * place + half, Buffer::kStep, q, Buffer::kBlock, gains);
        });
  }

 private:
  const WeightView& w_;
  QuadDecoder<kForm, false, kWhole, kFirst, kQuarters> decoder_;
};

// Up to 8 rows of A, high and low bytes in one tile, times all rows of W.
struct FewRows {
  static constexpr int kQuarters = 4;
  int64_t columns;

  int64_t TileBytes() const { return kParts * columns * kTileRowBytes; }

  ALWAYS_INLINE void LoadActivations(const uint8_t* a) const { _tile_loadd(0, a, kTileRowBytes); }

  template <int kHalf>
  static ALWAYS_INLINE void MultiplyHalf(const uint8_t* weights) {
    constexpr int64_t kStep = Stream<kQuarters>::kStep;
    if constexpr (kHalf == 0) {
      _tile_loadd(1, weights, kStep);
      _tile_dpbsud(4, 0, 1);
      _tile_loadd(2, weights + 64, kStep);
      _tile_dpbsud(5, 0, 2);
    } else {
      _tile_loadd(3, weights + 128, kStep);
      _tile_dpbsud(6, 0, 3);
      _tile_loadd(1, weights + 192, kStep);
      _tile_dpbsud(7, 0, 1);
    }
  }

  void AddTo(const float* scales, float* sums) const {
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
};

// Up to 16 rows of A, a tile of high bytes and one of low ones, times half of the rows of W.
struct TileRows {
  static constexpr int kQuarters = 2;
  int64_t columns;

  int64_t TileBytes() const { return kParts * kTileRows * kTileRowBytes; }

  ALWAYS_INLINE void LoadActivations(const uint8_t* a) const {
    _tile_loadd(0, a, kTileRowBytes);
    _tile_loadd(1, a + kTileRows * kTileRowBytes, kTileRowBytes);
  }

  template <int kHalf>
  static ALWAYS_INLINE void MultiplyHalf(const uint8_t* weights) {
    constexpr int64_t kStep = Stream<kQuarters>::kStep;
    if constexpr (kHalf == 0) {
      _tile_loadd(2, weights, kStep);
      _tile_dpbsud(4, 0, 2);
      _tile_dpbsud(5, 1, 2);
    } else {
      _tile_loadd(3, weights + 64, kStep);
      _tile_dpbsud(6, 0, 3);
      _tile_dpbsud(7, 1, 3);
    }
  }

  void AddTo(const float* scales, float* sums) const {
    alignas(64) int32_t out[2][kParts][kTileRows][16];
    _tile_stored(4, out[0][0], 64);
    _tile_stored(5, out[0][1], 64);
    _tile_stored(6, out[1][0], 64);
    _tile_stored(7, out[1][1], 64);
    for (int64_t c = 0; c < columns; ++c) {
      const __m512 scale = _mm512_set1_ps(scales[c]);
      AddSums(out[0][0][c], out[0][1][c], scale, sums + c * kTile);
      AddSums(out[1][0][c], out[1][1][c], scale, sums + c * kTile + 16);
    }
  }
};

// A tile of weights, or the quarters of it from kFirst on.
template <Form kForm, bool kWhole, typename Rows, int kFirst>
void StreamTile(const WeightView& w, int64_t tile, const uint8_t* a, const float* scales,
                const Rows& rows, float* sums) {
  Stream<Rows::kQuarters> buffer;
  constexpr int64_t kBlock = Stream<Rows::kQuarters>::kBlock;
  StreamDecoder<kForm, kWhole, kFirst, Rows::kQuarters> decoder(w, tile);
  const int64_t depth = (w.groups + kBlockGroups - 1) / kBlockGroups;
  const auto clear = [&](int64_t block) {
    RestTiles(w, buffer.rests[block / kTileBlocks % 2]).Clear(depth - block, kBlock);
  };
  const auto decode = [&](int half, int64_t block) ALWAYS_INLINE {
    decoder.Next(half, block % kTileBlocks, buffer.blocks[block % (kLag + 1)],
                 buffer.rests[block / kTileBlocks % 2]);
  };
  sums += 16 * kFirst;
  ZeroSums();
  for (int64_t next = 0; next < depth + kLag; ++next) {
    const int64_t b = next - kLag;
    const uint8_t* weights = buffer.blocks[(b + kLag + 1) % (kLag + 1)];
    if (next < depth && next % kTileBlocks == 0) clear(next);
    if (next < depth) decode(0, next);
    Written();
    if (b >= 0) {
      rows.LoadActivations(a);
      Rows::template MultiplyHalf<0>(weights);
    }
    if (next < depth) decode(1, next);
    if (b < 0) continue;
    Written();
    Rows::template MultiplyHalf<1>(weights);
    a += rows.TileBytes();
    if (b + 1 < depth && (b + 1) % kTileBlocks != 0) continue;
    for (int i = 0; i < kRestTiles; ++i, a += rows.TileBytes()) {
      rows.LoadActivations(a);
      const uint8_t* rests = buffer.rests[b / kTileBlocks % 2] + i * kBlock;
      Rows::template MultiplyHalf<0>(rests);
      Rows::template MultiplyHalf<1>(rests);
    }
    rows.AddTo(scales, sums);
    scales += kTileBlocks * rows.columns;
    ZeroSums();
  }
}

template <Form kForm, bool kWhole>
void StreamRows(const WeightView& w, int64_t tile, const uint8_t* a, const float* scales,
                int64_t columns, float* sums) {
  if (columns <= kFewRows)
    return StreamTile<kForm, kWhole, FewRows, 0>(w, tile, a, scales, {columns}, sums);
  StreamTile<kForm, kWhole, TileRows, 0>(w, tile, a, scales, {columns}, sums);
  StreamTile<kForm, kWhole, TileRows, 2>(w, tile, a, scales, {columns}, sums);
}

template <Form kForm>
void StreamForm(const WeightView& w, int64_t tile, const uint8_t* a, const float* scales,
                int64_t columns, float* sums) {
  const auto stream = IsWhole(w) ? StreamRows<kForm, true> : StreamRows<kForm, false>;
  stream(w, tile, a, scales, columns, sums);
}

}  // namespace
}  // namespace cosetq

#endif  // COSETQ_CPU_AMX_STREAM_H_
