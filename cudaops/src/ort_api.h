// ONNX Runtime's C API as the library uses it: the table of functions, and owners for what it hands
// out.

#ifndef COSETQ_ORT_API_H_
#define COSETQ_ORT_API_H_

#include <exception>
#include <memory>
#include <string>

#include "cosetq/schema.h"
#include "onnxruntime_c_api.h"

namespace cosetq {

// Set by RegisterCustomOps before any kernel exists.
extern const OrtApi* ort;

inline OrtStatus* Invalid(const std::string& message) {
  return ort->CreateStatus(
      ORT_INVALID_ARGUMENT,
      (std::string(schema::kDomain) + ": " + message).c_str());
}

// No exception may cross the C interface.
template <typename Body>
OrtStatus* Guard(Body body) {
  try {
    return body();
  } catch (const std::exception& e) {
    return Invalid(e.what());
  } catch (...) {
    return Invalid("unknown exception");
  }
}

struct OrtReleaser {
  void operator()(OrtTensorTypeAndShapeInfo* p) const { ort->ReleaseTensorTypeAndShapeInfo(p); }
  void operator()(OrtValue* p) const { ort->ReleaseValue(p); }
  void operator()(OrtMemoryInfo* p) const { ort->ReleaseMemoryInfo(p); }
  void operator()(OrtKeyValuePairs* p) const { ort->ReleaseKeyValuePairs(p); }
  void operator()(OrtAllocator* p) const { ort->ReleaseAllocator(p); }
};

template <typename T>
using OrtOwner = std::unique_ptr<T, OrtReleaser>;

}  // namespace cosetq

#define COSETQ_RETURN_IF_ERROR(expression)                               \
  do {                                                                   \
    if (OrtStatus* status_of_call = (expression)) return status_of_call; \
  } while (false)

#endif  // COSETQ_ORT_API_H_
