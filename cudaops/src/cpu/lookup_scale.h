// The step of value look-up tables. Everything has internal linkage, see weight_view.h.

#ifndef COSETQ_CPU_LOOKUP_SCALE_H_
#define COSETQ_CPU_LOOKUP_SCALE_H_

#include <math.h>

#include "kernels.h"

namespace cosetq {
namespace {

// No product of a codeword with a[4] is larger. NaN when an activation is.
inline double ProductBound(const FormTables& t, const float* a) {
  double norm = 0, coordinates = 0;
  for (int j = 0; j < 4; ++j) {
    norm += static_cast<double>(a[j]) * a[j];
    coordinates += fabs(static_cast<double>(a[j])) * t.largest[j];
  }
  const double by_norm = sqrt(norm) * t.longest;
  return by_norm < coordinates ? by_norm : coordinates;
}

// The step that makes no product larger than `largest`, from the bound of all of them: what activations
// are multiplied with, and what the integer 1 then stands for.
struct LookupStep {
  float scale, unit;

  LookupStep(const WeightView& w, double bound, float largest) {
    const bool any = bound > 1e-30;  // below, and its inverse would leave float's range
    scale = any ? static_cast<float>(largest / bound) : 0;
    const float one = w.level_weights[0] * (w.gains == nullptr ? w.gain_values[0] : 1.0f);
    // Zero, or NaN when an activation is; an infinite bound makes an infinite step and NaN sums.
    unit = static_cast<float>(any ? bound / largest * one : bound * 0);
  }
};

// Activations of some blocks of four in units of their step. Returns what the integer 1 then stands for.
inline float ScaleActivations(const WeightView& w, const float* a, int blocks, float largest,
                              float* scaled) {
  double bound = 0;
  for (int b = 0; b < blocks; ++b) {
    const double block = ProductBound(*w.tables, a + 4 * b);
    bound = block > bound || block != block ? block : bound;
  }
  const LookupStep step(w, bound, largest);
  for (int k = 0; k < 4 * blocks; ++k) scaled[k] = a[k] * step.scale;
  return step.unit;
}

}  // namespace
}  // namespace cosetq

#endif  // COSETQ_CPU_LOOKUP_SCALE_H_
