// Rounding with feedback (BlockLDLQ of QuIP#, arXiv 2402.04396) on the GPU: what the package quant does, to the bit. See
// cosetq/cuda.h.

#ifndef COSETQ_CUDA_FEEDBACK_H_
#define COSETQ_CUDA_FEEDBACK_H_

#include <cuda_runtime.h>

#include "cpu/encode.h"
#include "memory.h"

namespace cosetq::cuda {

// Rows in host memory, in position order.
struct FeedbackWork {
  const float* rows;    // [count][8 * groups]
  const float* steps;   // [count]
  int64_t count;
  uint16_t* indices;    // [count][groups][level][block]
  uint8_t* gains;       // [count][groups]
  float* errors;        // [count][8 * groups], weight less coded weight
  double* losses;       // [count], infinity for a row that ran away
};

// What all rows of a weight have in common. Safe for concurrent use.
class Feedback {
 public:
  // lower [8 * groups][8 * groups] may be null: then errors move no other group. metrics [groups][2][8][8] holds for each group
  // the factor of its metric and what errors of the later block move the earlier one by. Throws an Error.
  Feedback(const cosetq_codec& codec, const int32_t* leaders, int64_t groups, const float* lower, const float* metrics);

  void Run(const FeedbackWork& work) const;

 private:
  EncoderView view_;
  Buffer<uint32_t> leaders_[kEncodeLevels];
  int64_t groups_;
  Buffer<float> lower_, metrics_;
};

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_FEEDBACK_H_
