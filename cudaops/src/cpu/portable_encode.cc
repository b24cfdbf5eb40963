// The encoder for any processor.

#include <stdint.h>

namespace cosetq {
namespace {
constexpr int kLanes = 4;
}  // namespace
}  // namespace cosetq

#include "encode_vectors.h"

namespace cosetq {
namespace {

inline uint32_t Bits(M m) { return (m[0] & 1) | (m[1] & 2) | (m[2] & 4) | (m[3] & 8); }

inline U Gather(const uint32_t* table, U at) {
  return U{table[at[0]], table[at[1]], table[at[2]], table[at[3]]};
}

// Stores some lanes one after the other. May write as much as a whole vector.
inline void Pack(M lanes, U v, void* to) {
  auto* out = static_cast<uint32_t*>(to);
  for (uint32_t bits = Bits(lanes); bits != 0; bits &= bits - 1) *out++ = v[__builtin_ctz(bits)];
}

inline void LoadTile(const float* groups, F* x) {
  for (int j = 0; j < 8; ++j) x[j] = F{groups[j], groups[8 + j], groups[16 + j], groups[24 + j]};
}

}  // namespace
}  // namespace cosetq

#include "encode_digits.h"
#include "encode_metric.h"

namespace cosetq {

const EncodeKernel kPortableEncode = {"portable", Encode, EncodeInMetric};

}  // namespace cosetq
