// ONNX Runtime's C API inside the provider: errors become exceptions here and statuses again at the
// boundary.

#ifndef COSETQ_EP_API_H_
#define COSETQ_EP_API_H_

#include <exception>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include "backend.h"
#include "cosetq/schema.h"
#include "onnxruntime_c_api.h"

namespace cosetq::ep {

// Set when the library is registered, before anything else runs.
extern const OrtApi* ort;
extern const OrtEpApi* ort_ep;
extern int ort_minor;  // of its version, 1.x

constexpr char kProviderName[] = "CosetExecutionProvider";

inline void Check(OrtStatus* status) {
  if (status == nullptr) return;
  const std::string message = ort->GetErrorMessage(status);
  ort->ReleaseStatus(status);
  throw std::runtime_error(message);
}

// What ONNX Runtime calls runs on the provider's device, and no exception may cross the C interface.
template <typename Body>
OrtStatus* Guard(Body body) noexcept {
  const backend::OnDevice on_device;
  try {
    body();
    return nullptr;
  } catch (const std::bad_alloc&) {
    return ort->CreateStatus(ORT_FAIL, "CosetExecutionProvider: out of memory");
  } catch (const std::exception& e) {
    return ort->CreateStatus(ORT_FAIL, (std::string(kProviderName) + ": " + e.what()).c_str());
  }
}

struct Releaser {
  void operator()(OrtTensorTypeAndShapeInfo* p) const { ort->ReleaseTensorTypeAndShapeInfo(p); }
  void operator()(OrtValue* p) const { ort->ReleaseValue(p); }
  void operator()(OrtMemoryInfo* p) const { ort->ReleaseMemoryInfo(p); }
};

template <typename T>
using Owner = std::unique_ptr<T, Releaser>;

}  // namespace cosetq::ep

#endif  // COSETQ_EP_API_H_
