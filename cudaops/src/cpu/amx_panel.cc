// Weights as integers, AMX: a tile decoded to bytes without a sign is multiplied with activations
// of 16 bits, in two bytes with a sign each, 16 rows of A at a time. Up to 16 rows of A are
// multiplied while weights are decoded (amx_stream.h); of more, blocks meet panels of decoded
// weights.
//
// Products come out in tile registers, so scales are not per block of columns but per panel, whose
// sums stay in the registers: reading them costs as much as a block's products.

#include "amx_stream.h"

namespace cosetq {
namespace {

// A panel of activations: for each block and then for the coarse and the fine rests, for each part,
// a tile of as many rows as there are rows of A. Per block, with its share of the rests:
constexpr int64_t kRowBytes = kParts * (kTileRowBytes + kRestTiles * kTileRowBytes / kTileBlocks);
static_assert((kTileBlocks + kRestTiles) * kTileBytes <= kPanelBytes);

// Rows of A that meet a panel together; the last of many may be few. They stream past half of it, which stays in the first-level
// cache.
constexpr int64_t kBlockRows = 64;

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

// Rows of A for which the tile registers of this thread are set up: all of 1 to kFewRows apart,
// more as kTileRows. Setting up costs as much as a dozen products.
thread_local int64_t configured = 0;

void Configure(int64_t columns) {
  const bool few = columns <= kFewRows;
  if (!few) columns = kTileRows;
  if (columns == configured) return;
  TileConfig config;
  // With few, tiles 1 to 3 hold weights.
  for (int i = 0; i < 8; ++i)
    config.Set(i, few && (i == 0 || i >= 4) ? static_cast<int>(kParts * columns) : kTileRows);
  __asm__ volatile(""
                   :
                   : "r"(&config)
                   : "memory");  // GCC's intrinsic tells of the first bytes only
  _tile_loadconfig(&config);
  configured = columns;
}

void Finish() {
  _tile_release();
  configured = 0;
}

// Up to kFewRows rows of A against all rows of W.
void MultiplyFew(const uint8_t* panel, const uint8_t* a, const float* scales, int64_t tiles,
                 int64_t columns, float* sums) {
  const FewRows rows = {columns};
  ZeroSums();
  for (int64_t t = 0; t < tiles; ++t, panel += kTileBytes, a += rows.TileBytes()) {
    rows.LoadActivations(a);
    FewRows::MultiplyHalf<0>(panel);
    FewRows::MultiplyHalf<1>(panel);
  }
  rows.AddTo(scales, sums);
}

// More rows of A, 16 at a time, against 32 rows of W at a time.
void MultiplyMany(const uint8_t* panel, const uint8_t* a, const float* scales, int64_t tiles,
                  int64_t columns, float* sums) {
  const int64_t part = Filled(columns) * kTileRowBytes;
  for (int half = 0; half < 2; ++half) {
    for (int64_t first = 0; first < columns; first += kTileRows) {
      ZeroSums();
      const uint8_t* weights = panel + 128 * half;
      const uint8_t* from = a + first * kTileRowBytes;
      for (int64_t t = 0; t + 1 < tiles; ++t, weights += kTileBytes, from += kParts * part) {
        _tile_loadd(0, from, kTileRowBytes);
        _tile_loadd(2, weights, kStepBytes);
        _tile_loadd(1, from + part, kTileRowBytes);
        _tile_dpbsud(4, 0, 2);
        _tile_loadd(3, weights + 64, kStepBytes);
        _tile_dpbsud(5, 1, 2);
        _tile_dpbsud(6, 0, 3);
        _tile_dpbsud(7, 1, 3);
      }
      // Fine rests have no high part.
      _tile_loadd(1, from + part, kTileRowBytes);
      _tile_loadd(2, weights, kStepBytes);
      _tile_dpbsud(5, 1, 2);
      _tile_loadd(3, weights + 64, kStepBytes);
      _tile_dpbsud(7, 1, 3);
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
void Multiply(const WeightView&, const uint8_t* panel, const uint8_t* a, const float* scales,
              int64_t first, int64_t count, int64_t columns, const Ahead&, float* sums) {
  a += first * Filled(columns) * kRowBytes;
  scales += first * columns;
  Configure(columns);
  const auto multiply = columns <= kFewRows ? MultiplyFew : MultiplyMany;
  multiply(panel, a, scales, count + kRestTiles, columns, sums);
}

void MultiplyTile(const WeightView& w, int64_t tile, const uint8_t* a, const float* scales,
                  int64_t columns, float* sums) {
  Configure(columns);
  switch (w.form) {
    case Form::kOneByte:
      return StreamForm<Form::kOneByte>(w, tile, a, scales, columns, sums);
    case Form::kTwoByte:
      return StreamForm<Form::kTwoByte>(w, tile, a, scales, columns, sums);
    case Form::kNibbleByte:
      return StreamForm<Form::kNibbleByte>(w, tile, a, scales, columns, sums);
    case Form::kNibbles:
      return StreamForm<Form::kNibbles>(w, tile, a, scales, columns, sums);
    case Form::kTwoBits:
    case Form::kGeneral:
      return;
  }
}

int64_t TileColumns(const WeightView&) { return kTileRows; }

inline ALWAYS_INLINE __m256i HighPart(__m256i v) {
  return _mm256_srai_epi32(_mm256_add_epi32(v, _mm256_set1_epi32(128)), 8);
}

void Quantize(const WeightView& w, const float* a, int64_t column, int64_t columns, uint8_t* out,
              float* scales) {
  const PanelTables& t = w.tables->panel;
  const float limit = 32639;  // its high byte rounded is 127
  const int64_t part = Filled(columns) * kTileRowBytes;
  out += column * kTileRowBytes;
  scales += column;
  const __m256i coarse_weight = _mm256_set1_epi32(t.coarse);
  const __m256 per_coarse = _mm256_set1_ps(1.0f / t.coarse);
  for (int64_t first = 0; first < w.groups; first += kTileBlocks * kBlockGroups) {
    ActivationBlock block[kTileBlocks];
    __m256i largest = _mm256_setzero_si256();
    int count = 0;
    for (; count < kTileBlocks && first + count * kBlockGroups < w.groups; ++count) {
      ActivationBlock& b = block[count];
      largest = _mm256_max_epu32(largest, b.Load(w, a, first + count * kBlockGroups, t.whole));
      // A little more than it is: the integers' own rests may be larger.
      const __m256 rest = _mm256_mul_ps(b.rest, _mm256_set1_ps(1.01f / t.coarse));
      largest = _mm256_max_epu32(
          largest, _mm256_and_si256(_mm256_castps_si256(rest), _mm256_set1_epi32(0x7fffffff)));
    }
    const ActivationScale scale(LargestLane(largest), limit, t.unit);
    const __m256 inverse = _mm256_set1_ps(scale.inverse);
    *scales = scale.unit;
    const int64_t tile = kParts * part;
    uint8_t* rests = out + count * tile;
    for (int b = 0; b < count; ++b, out += tile, rests += kBlockGroups) {
      __m256i low[kGroup], high[kGroup];
      block[b].Round(inverse, low);
      for (int j = 0; j < kGroup; ++j) high[j] = HighPart(low[j]);
      StoreSteps(w, high, out);
      StoreSteps(w, low, out + part);
      // Of what the activations have become: bytes without a sign are larger than weights, and so
      // would be what rounding does to their products.
      __m256 rest = _mm256_setzero_ps();
      for (int j = 0; j < kGroup; ++j)
        rest = _mm256_fmadd_ps(_mm256_cvtepi32_ps(low[j]), _mm256_set1_ps(t.whole[j]), rest);
      const __m256i coarse = _mm256_cvtps_epi32(_mm256_mul_ps(rest, per_coarse));
      const __m256i fine =
          _mm256_sub_epi32(_mm256_cvtps_epi32(rest), _mm256_mullo_epi32(coarse, coarse_weight));
      StoreRest(HighPart(coarse), rests);
      StoreRest(coarse, rests + part);
      StoreRest(HighPart(fine), rests + tile);
      StoreRest(fine, rests + tile + part);
    }
    out += kRestTiles * tile;
    scales += kTileBlocks * columns;
  }
}

}  // namespace

const PanelKernels kAmxPanel16 = {
    Avx512PanelUsable, Avx512DecodeTiles, Quantize, Multiply,   MultiplyTile, TileColumns, Finish,
    Avx512StoreQuarters, kRowBytes,         1,        kBlockRows, kTileRows,    kTileBlocks, kTileBlocks,
};

}  // namespace cosetq
