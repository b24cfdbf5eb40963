// What the encoder's kernels see of a codec and of their work. Plain C types only, see
// weight_view.h.

#ifndef COSETQ_CPU_ENCODE_VIEW_H_
#define COSETQ_CPU_ENCODE_VIEW_H_

#include <stdint.h>

#include "weight_view.h"

namespace cosetq {

constexpr int kEncodeLevels = 4;  // at most
constexpr int kEncodeDim = 4;     // of D4
constexpr int kEncodeBlocks = 2;  // points of D4 in a group

// A point of D4 stands in 32 bits, 8 for each coordinate, the first lowest, with a bias that keeps
// them positive. Encoder::Create has made sure that they stay so.
constexpr int kEncodeBias = 128;

// Vectors of blocks that are looked at together.
constexpr int kWide = 4;

// The leaders of radix 4 by the residues of their coordinates modulo 4, [coordinate][residue]: each
// coordinate has its usual value, but where the quotients' sum is then odd, and the point outside
// the lattice, the coordinate of the highest rank has usual - turn.
struct ResidueTables {
  alignas(16) uint8_t usual[kEncodeDim][16], rank[kEncodeDim][16], turn[kEncodeDim][16];
};

struct EncodeLevel {
  const uint32_t* leaders;  // of each class, coordinate j in units of 2^(8j), modulo 2^32
  const uint8_t* columns;   // [kEncodeDim][256]: each coordinate of the leaders, aligned to 64
  const ResidueTables* residues;  // null where leaders do not follow from them
  uint32_t mask;                  // q - 1
  int32_t shift;                  // log2 q
  uint32_t zero;                  // the biased origin after division by q
};

// Between what all points of a code lie: the middles of their coordinates, and of the sums and differences of every two, and
// the larger half of the widths.
struct CodeHull {
  static constexpr int kPairs = kEncodeDim * (kEncodeDim - 1) / 2;
  float coordinate[kEncodeDim];
  float sum[kPairs], difference[kPairs];  // of coordinates i < j
  float half_coordinate, half_pair;
};

// The constants of lattice.Arithmetic and the tables of one codec.
struct EncoderView {
  int32_t dim;  // of the lattice: kEncodeDim, or 1 for runs of integers
  int32_t levels;
  int32_t gain_count;
  EncodeLevel level[kEncodeLevels];
  float gains[schema::kMaxGains];
  float centre[kEncodeDim];
  float reach_one;
  float reach_two;
  CodeHull hull;  // with dim kEncodeDim
  float ray_shrink;
  float max_steps;
  int32_t max_refinements;
  int32_t max_overloads;
  float run_low, run_high;  // with dim 1: the ends of the run
};

// Class indices of a group.
inline int64_t EncodeSlots(const EncoderView& codec) {
  return static_cast<int64_t>(codec.levels) * schema::kGroup / codec.dim;
}

// Rows to code with one step each. Row i of the work is row at[i] of rows, or i itself if at is
// null.
struct EncodeWork {
  const float* rows;
  int64_t groups;  // in a row
  const int32_t* at;
  const float* steps;
  int64_t count;
  double* sse;        // [count]
  uint16_t* indices;  // [count][groups][level][block], or null for errors alone
  uint8_t* gains;     // [count][groups]
};

using EncodeFn = void (*)(const EncoderView& codec, const EncodeWork& work);

// One group of each of many rows to code in a metric M = C * CT: the loss of an error e is e * M *
// eT.
struct MetricWork {
  const float* x;       // [count][kGroup]
  const float* steps;   // [count]
  const float* metric;  // [2][kGroup][kGroup]: C, and what errors of a block move earlier ones by
  int64_t count;
  uint16_t* indices;  // [count][level][block]
  uint8_t* gains;     // [count]
  float* weights;     // [count][kGroup]: what the codes stand for
  float* losses;      // [count]
};

using EncodeInMetricFn = void (*)(const EncoderView& codec, const MetricWork& work);

struct EncodeKernel {
  const char* isa;
  EncodeFn encode;
  EncodeInMetricFn encode_in_metric;
};

extern const EncodeKernel kPortableEncode;
#if defined(__x86_64__)
extern const EncodeKernel kAvx2Encode, kAvxVnniEncode;
extern const EncodeKernel kAvx512Encode, kAmxEncode;
#endif

}  // namespace cosetq

#endif  // COSETQ_CPU_ENCODE_VIEW_H_
