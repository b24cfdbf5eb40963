// Panels of decoded weights for AVX-512 and AMX.

#include "avx512_decode.h"

namespace cosetq {
namespace {

// For VNNI.
template <Form kForm, bool kWhole>
void DecodeBlocks(const WeightView& w, int64_t tile, int64_t first, int64_t count, uint8_t* panel) {
  QuadDecoder<kForm, true, kWhole> decoder(w, tile, first * kBlockGroups);
  const __m512i zero = _mm512_setzero_si512(), offset = _mm512_set1_epi8(-128);
  const __m512i kappa = _mm512_set1_epi16(w.tables->panel.kappa);
  const bool has_rests = w.tables->panel.has_rests;
  for (int64_t half = 0; half < kHalves * count; ++half, panel += kHalfBytes) {
    __m512i total[4] = {zero, zero, zero, zero};
    const auto store = [&](int s, int q, __m512i bytes) ALWAYS_INLINE {
      _mm512_store_si512(Step(panel, s) + q, bytes);
      AddDots(offset, bytes, &total[q]);
    };
    decoder.Next(store, [&](int q, __m512i gains) ALWAYS_INLINE {
      if (has_rests) store(kQuadSteps, q, _mm512_mullo_epi16(gains, kappa));
    });
    Unroll<4>([&](int q) ALWAYS_INLINE {
      _mm512_store_si512(Step(panel, kHalfSteps) + q, _mm512_sub_epi32(zero, total[q]));
    });
  }
}

template <Form kForm, bool kWhole>
void DecodeTiles(const WeightView& w, int64_t tile, int64_t first, int64_t count, uint8_t* panel) {
  QuadDecoder<kForm, false, kWhole> decoder(w, tile, first * kBlockGroups);
  const RestTiles rests(w, panel + count * kTileBytes);
  rests.Clear(count);
  for (int64_t b = 0; b < count; ++b, panel += kTileBytes) {
    for (int half = 0; half < kHalves; ++half) {
      decoder.Next(
          [&](int s, int q, __m512i bytes)
              ALWAYS_INLINE { _mm512_store_si512(Step(panel, half * kQuadSteps + s) + q, bytes); },
          [&](int q, __m512i gains)
              ALWAYS_INLINE { rests.Store(kHalves * b + half, q, gains); });
    }
  }
}

template <Form kForm>
void DecodeForm(const WeightView& w, int64_t tile, int64_t first, int64_t count, bool tiles,
                uint8_t* panel) {
  const PanelDecodeFn decode[2][2] = {{DecodeBlocks<kForm, false>, DecodeBlocks<kForm, true>},
                                      {DecodeTiles<kForm, false>, DecodeTiles<kForm, true>}};
  decode[tiles][IsWhole(w)](w, tile, first, count, panel);
}

void Decode(const WeightView& w, int64_t tile, int64_t first, int64_t count, bool tiles,
            uint8_t* panel) {
  switch (w.form) {
    case Form::kOneByte:
      return DecodeForm<Form::kOneByte>(w, tile, first, count, tiles, panel);
    case Form::kTwoByte:
      return DecodeForm<Form::kTwoByte>(w, tile, first, count, tiles, panel);
    case Form::kNibbleByte:
      return DecodeForm<Form::kNibbleByte>(w, tile, first, count, tiles, panel);
    case Form::kNibbles:
      return DecodeForm<Form::kNibbles>(w, tile, first, count, tiles, panel);
    case Form::kGeneral:
      return;
  }
}

}  // namespace

void Avx512Decode(const WeightView& w, int64_t tile, int64_t first, int64_t count, uint8_t* panel) {
  Decode(w, tile, first, count, false, panel);
}

void Avx512DecodeTiles(const WeightView& w, int64_t tile, int64_t first, int64_t count,
                       uint8_t* panel) {
  Decode(w, tile, first, count, true, panel);
}

bool Avx512PanelUsable(const FormTables& t) { return t.panel.usable; }

}  // namespace cosetq
