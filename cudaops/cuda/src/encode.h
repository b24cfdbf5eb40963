// Coding rows of weights on the GPU: what the package lattice does, to the bit. See cosetq/cosetq.h.

#ifndef COSETQ_CUDA_ENCODE_H_
#define COSETQ_CUDA_ENCODE_H_

#include <cuda_runtime.h>

#include <memory>
#include <mutex>

#include "cpu/encode.h"
#include "memory.h"

namespace cosetq::cuda {

class DeviceEncoder {
 public:
  // Throws an Error for a codec without kernels.
  DeviceEncoder(const cosetq_codec& codec, const int32_t* leaders);

  // Codes a work whose pointers are all of the device. errors holds a number per group of every item. Items that are not
  // taken get an sse of -1 and undefined codes.
  void Encode(const EncodeWork& work, float* errors, cudaStream_t stream) const;

  // The same for a work in host memory, in pieces. Returns the number of items not taken.
  int64_t EncodeHost(const EncodeWork& work);

 private:
  EncoderView view_;
  Buffer<uint32_t> leaders_[kEncodeLevels];

  std::mutex mutex_;
  Buffer<unsigned char> scratch_;  // of EncodeHost
};

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_ENCODE_H_
