// Single rows of a coded weight.

#ifndef COSETQ_CPU_GATHER_H_
#define COSETQ_CPU_GATHER_H_

#include "weight_view.h"

namespace cosetq {

// Decodes one row into values [cols]. It reads the codes of that row alone.
void DecodeRow(const WeightView& w, int64_t row, float* values);

}  // namespace cosetq

#endif  // COSETQ_CPU_GATHER_H_
