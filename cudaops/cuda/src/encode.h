// Coding rows of weights on the GPU: what the package lattice does, to the bit. See cosetq/cosetq.h.

#ifndef COSETQ_CUDA_ENCODE_H_
#define COSETQ_CUDA_ENCODE_H_

#include <cuda_runtime.h>

#include <memory>
#include <mutex>
#include <vector>

#include "cpu/encode.h"
#include "memory.h"

namespace cosetq::cuda {

class DeviceEncoder {
 public:
  // Throws an Error for a codec without kernels.
  DeviceEncoder(const cosetq_codec& codec, const int32_t* leaders);
  ~DeviceEncoder();

  // Codes a work whose pointers are all of the device. errors holds a number per group of every item. Items that are not
  // taken get an sse of -1 and undefined codes.
  void Encode(const EncodeWork& work, float* errors, cudaStream_t stream) const;

  // The same for a work in host memory, in pieces. Returns the number of items not taken. Rows of an id that is not 0 are those of the last work
  // that had it, as many as that had, and are not copied again if they are still there. Calls do not wait for each other.
  int64_t EncodeHost(const EncodeWork& work, int64_t id);

 private:
  class Desk;
  // Takes the desk with the rows of an id, or another one; null where one is to be made.
  std::unique_ptr<Desk> Take(int64_t id);

  EncoderView view_;
  Buffer<uint32_t> leaders_[kEncodeLevels];

  std::mutex mutex_;
  std::vector<std::unique_ptr<Desk>> desks_;  // that nobody is at, the last one used last
  size_t made_ = 0;
};

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_ENCODE_H_
