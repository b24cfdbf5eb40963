// The operator that takes rows out of a coded weight, such as an embedding.

#ifndef COSETQ_GATHER_OP_H_
#define COSETQ_GATHER_OP_H_

#include "ort_api.h"

namespace cosetq {

// All registered variants: two types of indices, two of Y, two of codes.
constexpr int kGatherOps = 8;
OrtCustomOp* GatherOpAt(int variant);

}  // namespace cosetq

#endif  // COSETQ_GATHER_OP_H_
