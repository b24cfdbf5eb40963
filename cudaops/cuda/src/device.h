// What the launches need to know of the current device.

#ifndef COSETQ_CUDA_DEVICE_H_
#define COSETQ_CUDA_DEVICE_H_

namespace cosetq::cuda {

struct Device {
  int processors;       // streaming multiprocessors
  int shared_limit;     // shared memory that a block may ask for
  bool hopper;          // clusters, overlapped launches, wgmma
};

// Of the current device, asked for once. Throws an Error.
const Device& CurrentDevice();

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_DEVICE_H_
