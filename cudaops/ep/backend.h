// What the provider needs of a device. backend_cuda.cu is the real one; backend_host.cc stands in for
// it on machines without a GPU, so that everything above can be tested there.

#ifndef COSETQ_EP_BACKEND_H_
#define COSETQ_EP_BACKEND_H_

#include <cstddef>
#include <stdexcept>
#include <string>

namespace cosetq::ep {

// A call to the device failed; what() says which and why.
class DeviceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

namespace backend {

// ONNX Runtime's provider whose memory is that of the device.
extern const char* const kCustomOpProvider;

// The device's name, or "" and in problem why there is none. Never throws.
std::string FindDevice(std::string* problem);

// Makes the provider's device the thread's own for as long as it lives: the application may be at work on another.
class OnDevice {
 public:
  OnDevice() noexcept;
  ~OnDevice();
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_ = 0;
};

void* CreateStream();
void DestroyStream(void* stream);
void Synchronize(void* stream);

void* CreateEvent();
void DestroyEvent(void* event);
void Record(void* event, void* stream);
void WaitOnStream(void* event, void* stream);
void WaitOnHost(void* event);

// What a stream is given between Begin and End is not done but kept, to be done any number of times, always in the same memory. kRecords is
// false where it is done at once and not kept: who wants it repeated gives it again.
extern const bool kRecords;
void BeginRecording(void* stream);
void* EndRecording(void* stream);  // throws if something was asked for that cannot be kept; the stream is as before in either case
void Repeat(void* recording, void* stream);
void DestroyRecording(void* recording);

// Bytes that could be allocated now, 0 where that is not known. Never throws.
size_t FreeMemory();

void* Allocate(size_t bytes);
void Free(void* data);

// All copies are in the stream's order. Those from and to pageable host memory return when the host
// memory may be used again.
void CopyToDevice(void* to, const void* from, size_t bytes, void* stream);
void CopyToHost(void* to, const void* from, size_t bytes, void* stream);
void CopyOnDevice(void* to, const void* from, size_t bytes, void* stream);

}  // namespace backend
}  // namespace cosetq::ep

#endif  // COSETQ_EP_BACKEND_H_
