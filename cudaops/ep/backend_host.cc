// A device that is the host: memory is memory, and every stream is done at once.

#include <cstdlib>
#include <cstring>
#include <new>

#include "backend.h"

namespace cosetq::ep::backend {

const char* const kCustomOpProvider = "CPUExecutionProvider";

std::string FindDevice(std::string*) { return "host"; }

OnDevice::OnDevice() noexcept = default;
OnDevice::~OnDevice() = default;

void* CreateStream() { return std::malloc(1); }
void DestroyStream(void* stream) { std::free(stream); }
void Synchronize(void*) {}

void* CreateEvent() { return std::malloc(1); }
void DestroyEvent(void* event) { std::free(event); }
void Record(void*, void*) {}
void WaitOnStream(void*, void*) {}
void WaitOnHost(void*) {}

const bool kRecords = false;
void BeginRecording(void*) {}
void* EndRecording(void*) { return nullptr; }
void Repeat(void*, void*) {}
void DestroyRecording(void*) {}

size_t FreeMemory() { return 0; }

void* Allocate(size_t bytes) {
  void* data = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (data == nullptr) throw std::bad_alloc();
  std::memset(data, 0xff, bytes);  // NaN: what a kernel leaves out shows
  return data;
}
void Free(void* data) { std::free(data); }

void CopyToDevice(void* to, const void* from, size_t bytes, void*) { std::memcpy(to, from, bytes); }
void CopyToHost(void* to, const void* from, size_t bytes, void*) { std::memcpy(to, from, bytes); }
void CopyOnDevice(void* to, const void* from, size_t bytes, void*) { std::memcpy(to, from, bytes); }

}  // namespace cosetq::ep::backend
