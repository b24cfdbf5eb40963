// The encoder for AVX2. Built with its own flags; reached only through encode.cc.

#include <immintrin.h>
#include <stdint.h>

namespace cosetq {
namespace {
constexpr int kLanes = 8;
}  // namespace
}  // namespace cosetq

#include "encode_vectors.h"

namespace cosetq {
namespace {

inline uint32_t Bits(M m) {
  return static_cast<uint32_t>(_mm256_movemask_ps(reinterpret_cast<__m256>(m)));
}

inline U Gather(const uint32_t* table, U at) {
  return reinterpret_cast<U>(_mm256_i32gather_epi32(reinterpret_cast<const int*>(table),
                                                    reinterpret_cast<__m256i>(at), 4));
}

// The lanes of each mask one after the other.
struct PackOrder {
  uint8_t lane[256][8];

  constexpr PackOrder() : lane() {
    for (int mask = 0; mask < 256; ++mask) {
      int count = 0;
      for (int i = 0; i < 8; ++i) {
        if (mask >> i & 1) lane[mask][count++] = static_cast<uint8_t>(i);
      }
    }
  }
};

// Stores some lanes one after the other. May write as much as a whole vector.
inline void Pack(M lanes, U v, void* to) {
  static constexpr PackOrder order;
  const __m128i of = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(order.lane[Bits(lanes)]));
  _mm256_storeu_si256(static_cast<__m256i*>(to),
                      _mm256_permutevar8x32_epi32(reinterpret_cast<__m256i>(v), _mm256_cvtepu8_epi32(of)));
}

// Every second number of a and then of b, from the first (0x88) or the second (0xdd) on.
template <int kFrom>
inline F EverySecond(F a, F b) {
  const __m256 halves = _mm256_shuffle_ps(a, b, kFrom);
  return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(halves), 0xd8));
}

// Turns 8 groups of 8 by taking every second number three times.
inline void LoadTile(const float* groups, F* x) {
  F a[8], b[8];
  for (int i = 0; i < 8; ++i) a[i] = Load<F>(groups + 8 * i);
  for (int bit = 1; bit < 8; bit *= 2) {
    for (int i = 0; i < 8; ++i) {
      const int low = i & ~bit;
      b[i] = i & bit ? EverySecond<0xdd>(a[low], a[low | bit]) : EverySecond<0x88>(a[low], a[low | bit]);
    }
    memcpy(a, b, sizeof a);
  }
  memcpy(x, a, sizeof a);
}

}  // namespace
}  // namespace cosetq

#include "encode_view.h"

namespace cosetq {
namespace {

// Turns 4 x 4 words of 32 bits in each half.
inline void TurnWords(const __m256i* v, __m256i* out) {
  const __m256i low01 = _mm256_unpacklo_epi32(v[0], v[1]), high01 = _mm256_unpackhi_epi32(v[0], v[1]);
  const __m256i low23 = _mm256_unpacklo_epi32(v[2], v[3]), high23 = _mm256_unpackhi_epi32(v[2], v[3]);
  out[0] = _mm256_unpacklo_epi64(low01, low23);
  out[1] = _mm256_unpackhi_epi64(low01, low23);
  out[2] = _mm256_unpacklo_epi64(high01, high23);
  out[3] = _mm256_unpackhi_epi64(high01, high23);
}

// Turns 4 x 4 bytes of four words in each half.
inline __m256i TurnBytes(__m256i v) {
  const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(order));
}

inline __m256i Table16(const uint8_t* table) {
  return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table)));
}

// Shifts bytes; what comes in from their neighbours is masked away by the caller.
inline __m256i Shifted(__m256i bytes, int by) {
  return _mm256_sll_epi16(bytes, _mm_cvtsi32_si128(by));
}

// A class as the index of a table of 256 bytes: 16 shuffles, of which its upper four bits choose one.
struct ClassIndex {
  __m256i low, high;  // a shuffle gives zero where bit 7 of its index is set
  __m256i bit[3];

  explicit ClassIndex(__m256i k) : low(k), high(_mm256_xor_si256(k, _mm256_set1_epi8(-128))) {
    for (int i = 0; i < 3; ++i) bit[i] = _mm256_slli_epi16(k, 3 - i);
  }

  __m256i In(const uint8_t* table) const {
    __m256i part[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      part[i] = _mm256_or_si256(_mm256_shuffle_epi8(Table16(table + 16 * i), low),
                                _mm256_shuffle_epi8(Table16(table + 128 + 16 * i), high));
      // Choose as soon as both are there: few registers hold unfinished choices.
      if (i % 2 == 1) part[i] = _mm256_blendv_epi8(part[i - 1], part[i], bit[0]);
      if (i % 4 == 3) part[i] = _mm256_blendv_epi8(part[i - 2], part[i], bit[1]);
      if (i % 8 == 7) part[i] = _mm256_blendv_epi8(part[i - 4], part[i], bit[2]);
    }
    return part[7];
  }
};

// Leaves of points what is not their leader, by the leaders' residues.
inline void SubtractLeaders(const ResidueTables& t, __m256i x[4]) {
  __m256i residue[4], rank[4];
  for (int j = 0; j < 4; ++j) {
    residue[j] = _mm256_and_si256(x[j], _mm256_set1_epi8(3));
    rank[j] = _mm256_shuffle_epi8(Table16(t.rank[j]), residue[j]);
    x[j] = _mm256_sub_epi8(x[j], _mm256_shuffle_epi8(Table16(t.usual[j]), residue[j]));
  }
  const __m256i sum = _mm256_add_epi8(_mm256_add_epi8(x[0], x[1]), _mm256_add_epi8(x[2], x[3]));
  const __m256i even =
      _mm256_cmpeq_epi8(_mm256_and_si256(sum, _mm256_set1_epi8(4)), _mm256_setzero_si256());
  // No rank is as high as what stands for even sums.
  const __m256i top = _mm256_or_si256(
      even, _mm256_max_epu8(_mm256_max_epu8(rank[0], rank[1]), _mm256_max_epu8(rank[2], rank[3])));
  for (int j = 0; j < 4; ++j) {
    const __m256i turn = _mm256_shuffle_epi8(Table16(t.turn[j]), residue[j]);
    x[j] = _mm256_add_epi8(x[j], _mm256_and_si256(_mm256_cmpeq_epi8(rank[j], top), turn));
  }
}

// The class of each point at every level, level m in bits 8m and up, and whether the point is in
// the code: 32 points at a time, one byte for each coordinate.
inline void Digits(const EncoderView& codec, const U points[kWide], U classes[kWide],
                   M inside[kWide]) {
  static_assert(kWide == 4);
  __m256i turned[4], x[4];
  for (int i = 0; i < 4; ++i) turned[i] = TurnBytes(reinterpret_cast<__m256i>(points[i]));
  TurnWords(turned, x);
  const __m256i zero = _mm256_setzero_si256();
  __m256i k[kEncodeLevels] = {zero, zero, zero, zero};
  for (int m = 0; m < codec.levels; ++m) {
    const EncodeLevel& level = codec.level[m];
    const int shift = level.shift;
    const __m256i mask = _mm256_set1_epi8(static_cast<char>(level.mask));
    // By the inverse of the basis, modulo q, which the bias is a multiple of.
    const __m256i x23 = _mm256_add_epi8(x[2], x[3]);
    const __m256i sum = _mm256_add_epi8(_mm256_add_epi8(x[0], x[1]), x23);
    // The neighbour's bit that comes in on top lies above the mask.
    const __m256i half = _mm256_srli_epi16(sum, 1);
    const __m256i b0 = _mm256_and_si256(_mm256_sub_epi8(zero, half), mask);
    const __m256i b1 = _mm256_and_si256(_mm256_sub_epi8(x[0], half), mask);
    const __m256i b2 = _mm256_and_si256(_mm256_sub_epi8(zero, x23), mask);
    const __m256i b3 = _mm256_and_si256(_mm256_sub_epi8(zero, x[3]), mask);
    k[m] = _mm256_or_si256(_mm256_or_si256(b0, Shifted(b1, shift)),
                           _mm256_or_si256(Shifted(b2, 2 * shift), Shifted(b3, 3 * shift)));
    if (level.residues != nullptr) {
      SubtractLeaders(*level.residues, x);
    } else if (level.mask == 1) {
      for (int j = 0; j < 4; ++j)
        x[j] = _mm256_sub_epi8(x[j], _mm256_shuffle_epi8(Table16(level.columns + 256 * j), k[m]));
    } else {
      const ClassIndex index(k[m]);
      for (int j = 0; j < 4; ++j) x[j] = _mm256_sub_epi8(x[j], index.In(level.columns + 256 * j));
    }
    if (m + 1 == codec.levels) break;
    const __m256i kept = _mm256_set1_epi8(static_cast<char>(0xff >> shift));
    for (int j = 0; j < 4; ++j)
      x[j] = _mm256_and_si256(_mm256_srl_epi16(x[j], _mm_cvtsi32_si128(shift)), kept);
  }
  const EncodeLevel& last = codec.level[codec.levels - 1];
  const __m256i origin = _mm256_set1_epi8(static_cast<char>(last.zero << last.shift));
  __m256i all = _mm256_cmpeq_epi8(x[0], origin);
  for (int j = 1; j < 4; ++j) all = _mm256_and_si256(all, _mm256_cmpeq_epi8(x[j], origin));
  TurnWords(k, turned);
  for (int i = 0; i < kWide; ++i) {
    classes[i] = reinterpret_cast<U>(TurnBytes(turned[i]));
    // Four times the byte of each of the vector's points, which stand in word i of each half.
    const __m128i of_word = _mm_setr_epi8(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    const __m256i spread = _mm256_broadcastsi128_si256(
        _mm_add_epi8(of_word, _mm_set1_epi8(static_cast<char>(4 * i))));
    inside[i] = reinterpret_cast<M>(_mm256_shuffle_epi8(all, spread));
  }
}

}  // namespace
}  // namespace cosetq

#include "encode_metric.h"

namespace cosetq {

const EncodeKernel kAvx2Encode = {"avx2", Encode, EncodeInMetric};
const EncodeKernel kAvxVnniEncode = {"avxvnni", Encode, EncodeInMetric};

}  // namespace cosetq
