#include <cstdint>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/linear.h"
#include "linear_kernel.h"
#include "linear_op.h"

namespace cosetq {
namespace {

// The session's threads and memory, for one call.
class OrtHost : public Host {
 public:
  explicit OrtHost(OrtKernelContext* context) : context_(context) {}
  ~OrtHost() override {
    for (void* block : blocks_) allocator_->Free(allocator_.get(), block);
    if (status_ != nullptr) ort->ReleaseStatus(status_);
  }
  OrtHost(const OrtHost&) = delete;
  OrtHost& operator=(const OrtHost&) = delete;


  // As many batches as pieces: threads then take the next piece when they are done with one.
  bool ParallelFor(void (*body)(void*, size_t), size_t total, void* data) override {
    status_ = ort->KernelContext_ParallelFor(context_, body, total, total, data);
    return status_ == nullptr;
  }

  void* Allocate(size_t bytes) override {
    constexpr size_t kAlign = 64;
    if (allocator_ == nullptr && (status_ = Open()) != nullptr) return nullptr;
    blocks_.reserve(blocks_.size() + 1);
    void* block = allocator_->Alloc(allocator_.get(), bytes + kAlign);
    if (block == nullptr) return nullptr;
    blocks_.push_back(block);
    const uintptr_t at = reinterpret_cast<uintptr_t>(block);
    return static_cast<char*>(block) + (kAlign - at % kAlign) % kAlign;
  }

  // What ONNX Runtime said when it failed; null when it said nothing.
  OrtStatus* TakeStatus() {
    OrtStatus* status = status_;
    status_ = nullptr;
    return status;
  }

 private:
  // Small calls do without the allocator, which takes longer to find than to use.
  OrtStatus* Open() {
    OrtMemoryInfo* raw = nullptr;
    COSETQ_RETURN_IF_ERROR(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &raw));
    OrtOwner<OrtMemoryInfo> info(raw);
    OrtAllocator* allocator = nullptr;
    COSETQ_RETURN_IF_ERROR(ort->KernelContext_GetAllocator(context_, raw, &allocator));
    allocator_.reset(allocator);
    return nullptr;
  }

  OrtKernelContext* context_;
  OrtOwner<OrtAllocator> allocator_;
  std::vector<void*> blocks_;
  OrtStatus* status_ = nullptr;
};

}  // namespace

OrtStatus* ComputeLinear(void* kernel, OrtKernelContext* context) {
  const LinearKernel& k = *static_cast<LinearKernel*>(kernel);
  const WeightView& w = k.weight->view();
  LinearTensors tensors;
  COSETQ_RETURN_IF_ERROR(OpenLinear(context, w.rows, w.cols, &tensors));
  if (tensors.batch == 0) return nullptr;
  LinearCall call;
  call.batch = tensors.batch;
  call.accuracy = k.accuracy;
  void* in = nullptr;
  void* out = nullptr;
  COSETQ_RETURN_IF_ERROR(ort->GetTensorMutableData(const_cast<OrtValue*>(tensors.a), &in));
  COSETQ_RETURN_IF_ERROR(ort->GetTensorMutableData(tensors.y, &out));
  if (k.half) {
    call.a_half = static_cast<const uint16_t*>(in);
    call.y_half = static_cast<uint16_t*>(out);
  } else {
    call.a = static_cast<const float*>(in);
    call.y = static_cast<float*>(out);
  }
  OrtHost host(context);
  switch (RunLinear(*k.weight, ActiveKernels(), call, &host)) {
    case Outcome::kDone:
      return nullptr;
    case Outcome::kNoMemory:
      if (OrtStatus* status = host.TakeStatus()) return status;
      return ort->CreateStatus(ORT_FAIL, "ai.coset::HNLQLinear: out of memory");
    case Outcome::kNoThreads:
      return host.TakeStatus();
  }
  return nullptr;
}

}  // namespace cosetq
