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

// Lets blocks of a kernel ask for all the shared memory that there is, but so much. A launch that allowed what it takes itself, when that
// varies, could have it lowered by another thread's.
template <typename... Parameters>
void ReserveSharedMemory(void (*kernel)(Parameters...), int but = 0) {
  Check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, CurrentDevice().shared_limit - but), "reserve shared memory");
}

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_DEVICE_H_
