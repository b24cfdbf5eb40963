// What the launches need to know of the current device.

#ifndef COSETQ_CUDA_DEVICE_H_
#define COSETQ_CUDA_DEVICE_H_

#include "errors.h"

namespace cosetq::cuda {

struct Device {
  int processors;       // streaming multiprocessors
  int shared_limit;     // shared memory that a block may ask for
  bool hopper;          // clusters, overlapped launches, wgmma
};

// Of the current device, asked for once. Throws an Error.
const Device& CurrentDevice();

// Lets blocks of a kernel on the current device ask for so much shared memory, always the same for that kernel: the driver, whose calls take
// as long as a launch, is told once.
void AllowSharedMemory(const void* kernel, int bytes);
template <typename... Parameters>
void AllowSharedMemory(void (*kernel)(Parameters...), int bytes) {
  AllowSharedMemory(reinterpret_cast<const void*>(kernel), bytes);
}

// Lets blocks of a kernel ask for all the shared memory that there is, but so much. A launch that allowed what it takes itself, when that
// varies, could have it lowered by another thread's.
template <typename... Parameters>
void ReserveSharedMemory(void (*kernel)(Parameters...), int but = 0) {
  AllowSharedMemory(kernel, CurrentDevice().shared_limit - but);
}

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_DEVICE_H_
