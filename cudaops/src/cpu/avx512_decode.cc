// Panels of decoded weights for AVX-512 and AMX.

#include "avx512_decode.h"

namespace cosetq {
namespace {

// For VNNI.
template <Form kForm, bool kWhole>
void DecodeBlocks(const WeightView& w, int64_t tile, int64_t first, int64_t count, uint8_t* panel) {
  QuadDecoder<kForm, true, kWhole, 0, 4> decoder(w, tile, first * kBlockGroups);
  const __m512i kappa = _mm512_set1_epi16(w.tables->panel.kappa);
  const bool has_rests = kForm != Form::kNibbles || w.tables->panel.has_rests;  // of D4's always
  for (int64_t half = 0; half < kHalves * count; ++half, panel += kHalfBytes) {
    const auto store = [&](int s, int q, __m512i bytes)
        ALWAYS_INLINE { _mm512_store_si512(Step(panel, s) + q, bytes); };
    const auto rest = [&](int q, __m512i gains)
        ALWAYS_INLINE { store(kQuadSteps, q, _mm512_mullo_epi16(gains, kappa)); };
    if (has_rests) {
      decoder.Next(store, rest);
    } else {
      decoder.template Next<false>(store, rest);
    }
  }
}

template <Form kForm, bool kWhole>
void DecodeTiles(const WeightView& w, int64_t tile, int64_t first, int64_t count, uint8_t* panel) {
  QuadDecoder<kForm, false, kWhole, 0, 4> decoder(w, tile, first * kBlockGroups);
  const RestTiles rests(w, panel + count * kTileBytes);
  rests.Clear(count, kTileBytes);
  for (int64_t b = 0; b < count; ++b, panel += kTileBytes) {
    for (int half = 0; half < kHalves; ++half) {
      decoder.Next(
          [&](int s, int q, __m512i bytes)
              ALWAYS_INLINE { _mm512_store_si512(Step(panel, half * kQuadSteps + s) + q, bytes); },
          [&](int q, __m512i gains)
              ALWAYS_INLINE { rests.Store(kHalves * b + half, kStepBytes, q, kTileBytes, gains); });
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
    case Form::kTwoBits:
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
