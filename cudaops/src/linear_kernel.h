// What a node keeps between calls.

#ifndef COSETQ_LINEAR_KERNEL_H_
#define COSETQ_LINEAR_KERNEL_H_

#include <memory>

#include "cpu/linear.h"
#include "cpu/weight.h"

namespace cosetq {

struct LinearKernel {
  bool half = false;  // activations are float16
  Accuracy accuracy = Accuracy::kAccurate;
  std::unique_ptr<Weight> weight;
};

}  // namespace cosetq

#endif  // COSETQ_LINEAR_KERNEL_H_
