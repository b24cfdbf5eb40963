// The device as ONNX Runtime sees it: allocator, copies and streams.

#ifndef COSETQ_EP_MEMORY_H_
#define COSETQ_EP_MEMORY_H_

#include "api.h"
#include "stream.h"

namespace cosetq::ep {

// Blocks allocated on a stream come from its arena. Others, such as inputs that a program binds once,
// are the device's own.
class Allocator : public OrtAllocator {
 public:
  explicit Allocator(const OrtMemoryInfo* info);
  const OrtMemoryInfo* const info;
};

class DataTransfer : public OrtDataTransferImpl {
 public:
  explicit DataTransfer(const OrtMemoryDevice* device);
  const OrtMemoryDevice* const device;
};

class SyncStream : public OrtSyncStreamImpl {
 public:
  SyncStream();
  Stream stream;
};

}  // namespace cosetq::ep

#endif  // COSETQ_EP_MEMORY_H_
