// Y = A * W^T + bias for a coded weight W: packs the activations, chooses a kernel path and splits
// the work.

#ifndef COSETQ_CPU_LINEAR_H_
#define COSETQ_CPU_LINEAR_H_

#include <cstddef>
#include <cstdint>

#include "counters.h"
#include "kernels.h"
#include "weight.h"

namespace cosetq {

// What a call needs from its surroundings; ONNX Runtime's thread pool and allocator in the library,
// plain ones in tests.
class Host {
 public:
  virtual ~Host() = default;
  // Calls body(data, i) for i < total, in any order, on any threads, and returns when all are done.
  // False: could not.
  virtual bool ParallelFor(void (*body)(void* data, size_t i), size_t total, void* data) = 0;
  // Memory on a 64-byte boundary, given back when the host goes; null when there is none.
  virtual void* Allocate(size_t bytes) = 0;
};

// How closely activations are kept; the values are those of the op's attribute.
enum class Accuracy {
  kAccurate = schema::kAccuracyAccurate,  // 16 bits or more: errors up to 1e-4 of the result
  kFast = schema::kAccuracyFast,          // 8 bits
};

// Rows of A and Y are contiguous. Exactly one of each pair of pointers is set.
struct LinearCall {
  int64_t batch = 0;
  const float* a = nullptr;
  const uint16_t* a_half = nullptr;
  float* y = nullptr;
  uint16_t* y_half = nullptr;
  Accuracy accuracy = Accuracy::kAccurate;
};

enum class Outcome { kDone, kNoMemory, kNoThreads };

Outcome RunLinear(const Weight& weight, const Kernels& kernels, const LinearCall& call, Host* host);

// The path that RunLinear takes.
Path ChoosePath(const WeightView& w, const Kernels& kernels, int64_t batch, Accuracy accuracy);

}  // namespace cosetq

#endif  // COSETQ_CPU_LINEAR_H_
