#include "memory.h"

#include <mutex>
#include <new>
#include <unordered_map>

#include "backend.h"

namespace cosetq::ep {
namespace {

// Who each block of an arena goes back to.
std::mutex blocks_mutex;
std::unordered_map<void*, std::shared_ptr<Arena>>& Blocks() {
  static auto* blocks = new std::unordered_map<void*, std::shared_ptr<Arena>>;
  return *blocks;
}

// From the arena of a stream, or for null the device's own.
void* AllocateOn(OrtSyncStream* stream, size_t size) noexcept {
  const backend::OnDevice on_device;
  try {
    if (stream == nullptr) return backend::Allocate(size == 0 ? 1 : size);
    std::shared_ptr<Arena> arena = Stream::At(ort->SyncStream_GetHandle(stream)).arena();
    void* data = arena->Allocate(size);
    std::lock_guard<std::mutex> lock(blocks_mutex);
    Blocks()[data] = std::move(arena);
    return data;
  } catch (const std::exception&) {
    return nullptr;  // which ONNX Runtime does not look at: whoever uses it has to
  }
}

void Release(void* data) noexcept {
  if (data == nullptr) return;
  std::shared_ptr<Arena> arena;
  {
    std::lock_guard<std::mutex> lock(blocks_mutex);
    const auto found = Blocks().find(data);
    if (found != Blocks().end()) {
      arena = std::move(found->second);
      Blocks().erase(found);
    }
  }
  if (arena != nullptr) {
    arena->Free(data);
  } else {
    backend::Free(data);
  }
}

struct Notification : OrtSyncNotificationImpl {
  explicit Notification(void* stream_handle)
      : OrtSyncNotificationImpl{}, stream(stream_handle), event(backend::CreateEvent()) {
    ort_version_supported = schema::kApiVersion;
    Release = [](OrtSyncNotificationImpl* self) noexcept {
      auto* n = static_cast<Notification*>(self);
      backend::DestroyEvent(n->event);
      delete n;
    };
    Activate = [](OrtSyncNotificationImpl* self) noexcept {
      auto* n = static_cast<Notification*>(self);
      return Guard([&] { backend::Record(n->event, n->stream); });
    };
    WaitOnDevice = [](OrtSyncNotificationImpl* self, OrtSyncStream* consumer) noexcept {
      auto* n = static_cast<Notification*>(self);
      return Guard([&] {
        if (consumer == nullptr) return backend::WaitOnHost(n->event);  // one that runs on the CPU
        backend::WaitOnStream(n->event, ort->SyncStream_GetHandle(consumer));
      });
    };
    WaitOnHost = [](OrtSyncNotificationImpl* self) noexcept {
      auto* n = static_cast<Notification*>(self);
      return Guard([&] { backend::WaitOnHost(n->event); });
    };
  }
  void* const stream;
  void* const event;
};

}  // namespace

Allocator::Allocator(const OrtMemoryInfo* memory_info) : OrtAllocator{}, info(memory_info) {
  version = schema::kApiVersion;
  Alloc = [](OrtAllocator*, size_t size) { return AllocateOn(nullptr, size); };
  Reserve = Alloc;
  Free = [](OrtAllocator*, void* data) { Release(data); };
  Info = [](const OrtAllocator* self) { return static_cast<const Allocator*>(self)->info; };
  AllocOnStream = [](OrtAllocator*, size_t size, OrtSyncStream* stream) { return AllocateOn(stream, size); };
}

DataTransfer::DataTransfer(const OrtMemoryDevice* memory) : OrtDataTransferImpl{}, device(memory) {
  ort_version_supported = schema::kApiVersion;
  Release = [](OrtDataTransferImpl*) noexcept {};  // the factory keeps it
  CanCopy = [](const OrtDataTransferImpl* self, const OrtMemoryDevice* from, const OrtMemoryDevice* to) noexcept {
    const OrtMemoryDevice* own = static_cast<const DataTransfer*>(self)->device;
    const auto ours = [&](const OrtMemoryDevice* d) { return ort_ep->MemoryDevice_AreEqual(d, own); };
    const auto host = [&](const OrtMemoryDevice* d) {
      return ort_ep->MemoryDevice_GetDeviceType(d) == OrtMemoryInfoDeviceType_CPU;
    };
    return (ours(from) && (ours(to) || host(to))) || (host(from) && ours(to));
  };
  CopyTensors = [](OrtDataTransferImpl* self, const OrtValue** from, OrtValue** to, OrtSyncStream** streams,
                   size_t count) noexcept {
    return Guard([&] {
      const OrtMemoryDevice* own = static_cast<const DataTransfer*>(self)->device;
      for (size_t i = 0; i < count; ++i) {
        OrtSyncStream* on = streams == nullptr ? nullptr : streams[i];
        void* handle = on != nullptr ? ort->SyncStream_GetHandle(on) : Stream::At(nullptr).handle();
        size_t bytes = 0;
        void *source = nullptr, *target = nullptr;
        Check(ort->GetTensorSizeInBytes(from[i], &bytes));
        Check(ort->GetTensorMutableData(const_cast<OrtValue*>(from[i]), &source));
        Check(ort->GetTensorMutableData(to[i], &target));
        if (bytes == 0) continue;
        if (source == nullptr || target == nullptr) throw std::bad_alloc();  // of which AllocateOn had none
        const bool from_device = ort_ep->MemoryDevice_AreEqual(ort_ep->Value_GetMemoryDevice(from[i]), own);
        const bool to_device = ort_ep->MemoryDevice_AreEqual(ort_ep->Value_GetMemoryDevice(to[i]), own);
        if (from_device && to_device) {
          backend::CopyOnDevice(target, source, bytes, handle);
        } else if (to_device) {
          backend::CopyToDevice(target, source, bytes, handle);
        } else {
          backend::CopyToHost(target, source, bytes, handle);
        }
        if (on == nullptr) backend::Synchronize(handle);
      }
    });
  };
}

SyncStream::SyncStream() : OrtSyncStreamImpl{} {
  ort_version_supported = schema::kApiVersion;
  Release = [](OrtSyncStreamImpl* self) noexcept { delete static_cast<SyncStream*>(self); };
  GetHandle = [](OrtSyncStreamImpl* self) noexcept { return static_cast<SyncStream*>(self)->stream.handle(); };
  CreateNotification = [](OrtSyncStreamImpl* self, OrtSyncNotificationImpl** out) noexcept {
    return Guard([&] { *out = new Notification(static_cast<SyncStream*>(self)->stream.handle()); });
  };
  Flush = [](OrtSyncStreamImpl* self) noexcept {
    return Guard([&] { backend::Synchronize(static_cast<SyncStream*>(self)->stream.handle()); });
  };
  OnSessionRunEnd = [](OrtSyncStreamImpl*) noexcept -> OrtStatus* { return nullptr; };
}

}  // namespace cosetq::ep
