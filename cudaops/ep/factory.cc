// The entry points that ONNX Runtime calls when the library is registered.

#include <cstdio>

#include "cosetq/cosetq.h"
#include "api.h"
#include "backend.h"
#include "memory.h"
#include "provider.h"

namespace cosetq::ep {

const OrtApi* ort = nullptr;
const OrtEpApi* ort_ep = nullptr;
int ort_minor = 0;

namespace {

constexpr uint32_t kNvidia = 0x10de;

class Factory : public OrtEpFactory {
 public:
  Factory();
  ~Factory() {
    if (device_ != nullptr) ort_ep->ReleaseHardwareDevice(device_);
  }

 private:
  static Factory& Of(OrtEpFactory* self) { return *static_cast<Factory*>(self); }
  void FindDevices(const OrtHardwareDevice* const* devices, size_t count, OrtEpDevice** out, size_t capacity, size_t* found);

  Owner<OrtMemoryInfo> memory_;
  std::unique_ptr<DataTransfer> transfer_;
  OrtHardwareDevice* device_ = nullptr;  // where ONNX Runtime did not see the GPU
};

Factory::Factory() : OrtEpFactory{} {
  OrtMemoryInfo* memory = nullptr;
  Check(ort->CreateMemoryInfo_V2("CosetCuda", OrtMemoryInfoDeviceType_GPU, kNvidia, 0, OrtDeviceMemoryType_DEFAULT, 0,
                                 OrtDeviceAllocator, &memory));
  memory_.reset(memory);
  transfer_ = std::make_unique<DataTransfer>(ort_ep->MemoryInfo_GetMemoryDevice(memory));

  ort_version_supported = schema::kApiVersion;
  GetName = [](const OrtEpFactory*) noexcept { return kProviderName; };
  GetVendor = [](const OrtEpFactory*) noexcept { return "cosetq"; };
  GetVendorId = [](const OrtEpFactory*) noexcept { return kNvidia; };
  GetVersion = [](const OrtEpFactory*) noexcept { return "1.0.0"; };
  GetSupportedDevices = [](OrtEpFactory* self, const OrtHardwareDevice* const* devices, size_t count, OrtEpDevice** out,
                           size_t capacity, size_t* found) noexcept {
    return Guard([&] { Of(self).FindDevices(devices, count, out, capacity, found); });
  };
  CreateEp = [](OrtEpFactory*, const OrtHardwareDevice* const*, const OrtKeyValuePairs* const*, size_t,
                const OrtSessionOptions* options, const OrtLogger*, OrtEp** ep) noexcept {
    return Guard([&] { *ep = new Provider(options); });
  };
  ReleaseEp = [](OrtEpFactory*, OrtEp* ep) noexcept { delete static_cast<Provider*>(ep); };
  CreateAllocator = [](OrtEpFactory*, const OrtMemoryInfo* info, const OrtKeyValuePairs*, OrtAllocator** out) noexcept {
    return Guard([&] { *out = new Allocator(info); });
  };
  ReleaseAllocator = [](OrtEpFactory*, OrtAllocator* allocator) noexcept { delete static_cast<Allocator*>(allocator); };
  CreateDataTransfer = [](OrtEpFactory* self, OrtDataTransferImpl** out) noexcept -> OrtStatus* {
    *out = Of(self).transfer_.get();
    return nullptr;
  };
  IsStreamAware = [](const OrtEpFactory*) noexcept { return true; };
  CreateSyncStreamForDevice = [](OrtEpFactory*, const OrtMemoryDevice*, const OrtKeyValuePairs*,
                                 OrtSyncStreamImpl** out) noexcept {
    return Guard([&] { *out = new SyncStream; });
  };
}

// One device: the GPU that CUDA shows first. Machines without a display driver and containers often hide
// it from ONNX Runtime, which is then told of it.
void Factory::FindDevices(const OrtHardwareDevice* const* devices, size_t count, OrtEpDevice** out, size_t capacity,
                          size_t* found) {
  *found = 0;
  std::string problem;
  const std::string name = backend::FindDevice(&problem);
  if (name.empty() || capacity == 0) return;
  const OrtHardwareDevice* gpu = nullptr;
  for (size_t i = 0; i < count && gpu == nullptr; ++i) {
    if (ort->HardwareDevice_Type(devices[i]) == OrtHardwareDeviceType_GPU &&
        ort->HardwareDevice_VendorId(devices[i]) == kNvidia)
      gpu = devices[i];
  }
  if (gpu == nullptr) {
    if (device_ == nullptr)
      Check(ort_ep->CreateHardwareDevice(OrtHardwareDeviceType_GPU, kNvidia, 0, "NVIDIA", nullptr, &device_));
    gpu = device_;
  }
  OrtKeyValuePairs* about = nullptr;
  ort->CreateKeyValuePairs(&about);
  ort->AddKeyValuePair(about, "name", name.c_str());
  OrtEpDevice* device = nullptr;
  OrtStatus* status = ort_ep->CreateEpDevice(this, gpu, about, nullptr, &device);
  ort->ReleaseKeyValuePairs(about);
  Check(status);
  Check(ort_ep->EpDevice_AddAllocatorInfo(device, memory_.get()));
  out[(*found)++] = device;
}

}  // namespace
}  // namespace cosetq::ep

extern "C" {

COSETQ_EXPORT OrtStatus* CreateEpFactories(const char*, const OrtApiBase* base, const OrtLogger*, OrtEpFactory** factories,
                                           size_t capacity, size_t* count) {
  namespace ep = cosetq::ep;
  const OrtApi* api = base->GetApi(cosetq::schema::kApiVersion);
  if (api == nullptr) {
    // Statuses are as old as the API itself.
    const std::string message = std::string(ep::kProviderName) + " needs ONNX Runtime " + cosetq::schema::kMinOrtVersion + " or later";
    return base->GetApi(1)->CreateStatus(ORT_FAIL, message.c_str());
  }
  ep::ort = api;
  ep::ort_ep = api->GetEpApi();
  std::sscanf(base->GetVersionString(), "1.%d", &ep::ort_minor);
  return ep::Guard([&] {
    if (capacity < 1) throw std::invalid_argument("no room for a factory");
    factories[0] = new ep::Factory;
    *count = 1;
  });
}

COSETQ_EXPORT OrtStatus* ReleaseEpFactory(OrtEpFactory* factory) {
  delete static_cast<cosetq::ep::Factory*>(factory);
  return nullptr;
}

}  // extern "C"
