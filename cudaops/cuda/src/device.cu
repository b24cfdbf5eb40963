#include "device.h"

#include <array>
#include <mutex>
#include <set>
#include <utility>

#include "errors.h"

namespace cosetq::cuda {

const Device& CurrentDevice() {
  constexpr int kMaxDevices = 64;
  static std::array<std::once_flag, kMaxDevices> once;
  static std::array<Device, kMaxDevices> devices;
  int id = 0;
  Check(cudaGetDevice(&id), "find the current device");
  if (id >= kMaxDevices) throw Error("device number " + std::to_string(id) + " is too large");
  const auto i = static_cast<size_t>(id);
  std::call_once(once[i], [&] {
    int major = 0, minor = 0;
    const auto ask = [&](int* value, cudaDeviceAttr attribute) {
      Check(cudaDeviceGetAttribute(value, attribute, id), "ask the device");
    };
    ask(&major, cudaDevAttrComputeCapabilityMajor);
    ask(&minor, cudaDevAttrComputeCapabilityMinor);
    ask(&devices[i].processors, cudaDevAttrMultiProcessorCount);
    ask(&devices[i].shared_limit, cudaDevAttrMaxSharedMemoryPerBlockOptin);
    devices[i].hopper = major == 9 && minor == 0;
    if (major < 8) {
      throw Error("the device has compute capability " + std::to_string(major) + "." + std::to_string(minor) +
                  ", the kernels need 8.0 or later");
    }
  });
  return devices[i];
}

void AllowSharedMemory(const void* kernel, int bytes) {
  static std::mutex mutex;
  static auto* allowed = new std::set<std::pair<int, const void*>>;
  int id = 0;
  Check(cudaGetDevice(&id), "find the current device");
  std::lock_guard<std::mutex> lock(mutex);
  if (allowed->count({id, kernel}) != 0) return;
  Check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "reserve shared memory");
  allowed->emplace(id, kernel);
}

}  // namespace cosetq::cuda
