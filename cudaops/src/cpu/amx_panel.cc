// Weights as integers, AMX: a tile decoded to bytes is multiplied with activations of 16 bits, in two
// bytes with a sign each, 16 rows of A at a time.
//
// Products come out in tile registers, so scales are not per block of columns but per panel, whose
// sums stay in the registers: reading them costs as much as a block's products.

#include "avx512_panel.h"

namespace cosetq {
namespace {

constexpr int kTileRows = 16;          // of A
constexpr int64_t kTileRowBytes = 64;  // of a row of A in a tile: a block's columns
constexpr int kParts = 2;
// A panel of activations: for each block and then for the rests, for each part, a tile of as many
// rows as there are rows of A. Per block, with its share of the rests:
constexpr int64_t kRowBytes = kParts * (kTileRowBytes + kTileRowBytes / kTileBlocks);
static_assert((kTileBlocks + 1) * kTileBytes <= kPanelBytes);

// Rows of A that meet a panel together. They stream past half of it, which stays in the first-level
// cache.
constexpr int64_t kBlockRows = 64;

// Both parts of so many rows of A fit one tile.
constexpr int64_t kFewRows = kTileRows / kParts;

// Rows of A with those that fill up the last tile.
inline int64_t Filled(int64_t columns) {
  return columns <= kFewRows ? columns : (columns + kTileRows - 1) / kTileRows * kTileRows;
}

// The shape of every tile register, as LDTILECFG reads it.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  void Set(int tile, int count) {
    row_bytes[tile] = kTileRowBytes;
    rows[tile] = static_cast<uint8_t>(count);
  }
};

// Rows of A for which the tile registers of this thread are set up: all of 1 to kFewRows apart, more as
// kTileRows. Setting up costs as much as a dozen products.
thread_local int64_t configured = 0;

void Configure(int64_t columns) {
  const bool few = columns <= kFewRows;
  if (!few) columns = kTileRows;
  if (columns == configured) return;
  TileConfig config;
  // With few, tiles 1 to 3 hold weights.
  for (int i = 0; i < 8; ++i)
    config.Set(i, few && (i == 0 || i >= 4) ? static_cast<int>(kParts * columns) : kTileRows);
  __asm__ volatile("" : : "r"(&config) : "memory");  // GCC's intrinsic tells of the first bytes only
  _tile_loadconfig(&config);
  configured = columns;
}

void Finish() {
  _tile_release();
  configured = 0;
}

// sums += scale * (256 * high + low) for 16 lanes.
inline ALWAYS_INLINE void AddSums(const int32_t* high, const int32_t* low, __m512 scale,
                                  float* sums) {
  const __m512 both = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(high)),
                                      _mm512_set1_ps(256), _mm512_cvtepi32_ps(_mm512_load_si512(low)));
  _mm512_store_ps(sums, _mm512_fmadd_ps(both, scale, _mm512_load_ps(sums)));
}

// Up to 8 rows of A, high and low bytes in one tile, against all 64 rows of W.
void MultiplyFew(const uint8_t* panel, const uint8_t* a, const float* scales, int64_t tiles,
                 int64_t columns, float* sums) {
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (int64_t t = 0; t < tiles; ++t, panel += kTileBytes, a += kParts * columns * kTileRowBytes) {
    _tile_loadd(0, a, kTileRowBytes);
    _tile_loadd(1, panel, kStepBytes);
    _tile_loadd(2, panel + 64, kStepBytes);
    _tile_dpbssd(4, 0, 1);
    _tile_loadd(3, panel + 128, kStepBytes);
    _tile_dpbssd(5, 0, 2);
    _tile_loadd(1, panel + 192, kStepBytes);
    _tile_dpbssd(6, 0, 3);
    _tile_dpbssd(7, 0, 1);
  }
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

// Any rows of A, 16 at a time, against 32 rows of W at a time.
void MultiplyMany(const uint8_t* panel, const uint8_t* a, const float* scales, int64_t tiles,
                  int64_t columns, float* sums) {
  const int64_t part = Filled(columns) * kTileRowBytes;
  for (int half = 0; half < 2; ++half) {
    for (int64_t first = 0; first < columns; first += kTileRows) {
      _tile_zero(4);
      _tile_zero(5);
      _tile_zero(6);
      _tile_zero(7);
      const uint8_t* weights = panel + 128 * half;
      const uint8_t* from = a + first * kTileRowBytes;
      for (int64_t t = 0; t < tiles; ++t, weights += kTileBytes, from += kParts * part) {
        _tile_loadd(0, from, kTileRowBytes);
        _tile_loadd(2, weights, kStepBytes);
        _tile_loadd(1, from + part, kTileRowBytes);
        _tile_dpbssd(4, 0, 2);
        _tile_loadd(3, weights + 64, kStepBytes);
        _tile_dpbssd(5, 1, 2);
        _tile_dpbssd(6, 0, 3);
        _tile_dpbssd(7, 1, 3);
      }
      alignas(64) int32_t out[2][kParts][kTileRows][16];
      _tile_stored(4, out[0][0], 64);
      _tile_stored(5, out[0][1], 64);
      _tile_stored(6, out[1][0], 64);
      _tile_stored(7, out[1][1], 64);
      const int64_t rows = columns - first < kTileRows ? columns - first : kTileRows;
      for (int64_t c = 0; c < rows; ++c) {
        const __m512 scale = _mm512_set1_ps(scales[first + c]);
        float* to = sums + (first + c) * kTile + 32 * half;
        AddSums(out[0][0][c], out[0][1][c], scale, to);
        AddSums(out[1][0][c], out[1][1][c], scale, to + 16);
      }
    }
  }
}

// One panel: count blocks and their rests.
void Multiply(const uint8_t* panel, const uint8_t* a, const float* scales, int64_t first,
              int64_t count, int64_t columns, float* sums) {
  a += first * Filled(columns) * kRowBytes;
  scales += first * columns;
  Configure(columns);
  const auto multiply = columns <= kFewRows ? MultiplyFew : MultiplyMany;
  multiply(panel, a, scales, count + 1, columns, sums);
}

void Quantize(const WeightView& w, const float* a, int64_t column, int64_t columns, uint8_t* out,
              float* scales) {
  const PanelTables& t = w.tables->panel;
  const float limit = 32639;  // its high byte rounded is 127
  const int64_t part = Filled(columns) * kTileRowBytes;
  out += column * kTileRowBytes;
  scales += column;
  for (int64_t first = 0; first < w.groups; first += kTileBlocks * kBlockGroups) {
    ActivationBlock block[kTileBlocks];
    __m256i largest = _mm256_setzero_si256();
    int count = 0;
    for (; count < kTileBlocks && first + count * kBlockGroups < w.groups; ++count) {
      largest = _mm256_max_epu32(largest, block[count].Load(w, a, first + count * kBlockGroups));
    }
    const ActivationScale scale(LargestLane(largest), limit, t.unit);
    *scales = scale.unit;
    uint8_t* rests = out + count * kParts * part;
    for (int b = 0; b < count; ++b, out += kParts * part, rests += kBlockGroups) {
      __m256i low[kGroup + 1], high[kGroup + 1];
      block[b].Round(t, _mm256_set1_ps(scale.inverse), low);
      for (int j = 0; j <= kGroup; ++j) {
        high[j] = _mm256_srai_epi32(_mm256_add_epi32(low[j], _mm256_set1_epi32(128)), 8);
      }
      StoreSteps(high, out);
      StoreRest(high[kGroup], rests);
      StoreSteps(low, out + part);
      StoreRest(low[kGroup], rests + part);
    }
    out += kParts * part;
    scales += kTileBlocks * columns;
  }
}

}  // namespace

const PanelKernels kAmxPanel16 = {
    Avx512PanelUsable, Avx512DecodeTiles, Quantize,  Multiply,  Finish,      Avx512LaneRows,
    kRowBytes,         1,                 kBlockRows, kTileRows, kTileBlocks,
};

}  // namespace cosetq
