// Packed activations: columns in the order of the codes, several rows of A side by side.
//
// The rows of A are cut into blocks of at most kColumns. Block i holds packed[k][c] for its rows c,
// where k = g * kGroup + j stands for column j * groups + g of A. Columns past the last, and groups
// added to make whole blocks of them, are zero.

#ifndef COSETQ_CPU_ACTIVATIONS_H_
#define COSETQ_CPU_ACTIVATIONS_H_

#include <cstdint>

#include "kernels.h"
#include "linear.h"

namespace cosetq {

// Number of packed columns: whole blocks of groups.
inline int64_t PackedDepth(const WeightView& w) {
  return (w.groups + kBlockGroups - 1) / kBlockGroups * kBlockGroups * kGroup;
}

// Packs rows [first, first + count) of A as one block. row is scratch for one row of float.
void PackBlock(const WeightView& w, const Kernels& kernels, const LinearCall& call, int64_t first,
               int64_t count, float* row, float* packed);

// Packs groups [first, first + count) of one row of A, with zeros past the last.
void PackGroups(const WeightView& w, const Kernels& kernels, const LinearCall& call, int64_t row,
                int64_t first, int64_t count, float* packed);

}  // namespace cosetq

#endif  // COSETQ_CPU_ACTIVATIONS_H_
