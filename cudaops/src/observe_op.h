// The operator ai.coset::Observe in ONNX Runtime: calibration's tap on an activation.

#ifndef COSETQ_OBSERVE_OP_H_
#define COSETQ_OBSERVE_OP_H_

#include "ort_api.h"

namespace cosetq {

// The variant for float or float16 input, which lives as long as the library.
OrtCustomOp* ObserveOpFor(ONNXTensorElementDataType input);

}  // namespace cosetq

#endif  // COSETQ_OBSERVE_OP_H_
