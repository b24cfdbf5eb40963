// What the operators read alike from a node: the constant inputs and attributes that describe a
// coded weight.

#ifndef COSETQ_READ_WEIGHT_H_
#define COSETQ_READ_WEIGHT_H_

#include <vector>

#include "cpu/weight.h"
#include "ort_api.h"

namespace cosetq {

// Fills in all of spec but bias and rotation. The attribute compute_type must be real, the type of Y.
OrtStatus* ReadWeight(const OrtKernelInfo* info, ONNXTensorElementDataType real,
                      ONNXTensorElementDataType code, WeightSpec* spec);

// The input at index, a constant initializer of the type want.
OrtStatus* ConstantInput(const OrtKernelInfo* info, int index, ONNXTensorElementDataType want,
                         TensorSpec* tensor);

// A tensor attribute of floats of rank 1.
OrtStatus* ListAttribute(const OrtKernelInfo* info, const char* name, std::vector<float>* values);

}  // namespace cosetq

#endif  // COSETQ_READ_WEIGHT_H_
