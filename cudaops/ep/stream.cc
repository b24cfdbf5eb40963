#include "stream.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include "backend.h"

namespace cosetq::ep {
namespace {

// Classes of sizes an eighth apart, so that slightly different shapes share blocks.
size_t RoundUp(size_t bytes) {
  if (bytes > SIZE_MAX / 2) throw std::bad_alloc();
  size_t step = 512;
  while (step * 16 <= bytes) step *= 2;
  return bytes == 0 ? step : (bytes + step - 1) / step * step;
}

std::mutex streams_mutex;
std::unordered_map<void*, Stream*>& Streams() {
  static auto* streams = new std::unordered_map<void*, Stream*>;
  return *streams;
}

}  // namespace

Arena::~Arena() {
  for (const auto& [data, size] : sizes_) backend::Free(data);
}

void* Arena::Allocate(size_t bytes) {
  const size_t size = RoundUp(bytes);
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = free_.lower_bound(size);
  if (found != free_.end() && found->first <= size + size / 4) {
    void* data = found->second;
    free_.erase(found);
    return data;
  }
  if (limit_ != 0 && size_ + size > limit_) throw std::bad_alloc();
  void* data = nullptr;
  try {
    data = backend::Allocate(size);
  } catch (const std::bad_alloc&) {
    if (limit_ != 0 || free_.empty()) throw;
    for (const auto& [bytes_of, block] : free_) {  // give back what lies idle, once
      backend::Free(block);
      sizes_.erase(block);
      size_ -= bytes_of;
    }
    free_.clear();
    data = backend::Allocate(size);
  }
  sizes_[data] = size;
  size_ += size;
  return data;
}

void Arena::Free(void* data) {
  std::lock_guard<std::mutex> lock(mutex_);
  free_.emplace(sizes_.at(data), data);
}

Buffer::Buffer(Kind kind, void* data, std::shared_ptr<Arena> arena)
    : kind_(kind), data_(data), arena_(std::move(arena)) {}

Buffer::~Buffer() {
  if (kind_ == Kind::kHost) std::free(data_);
  if (kind_ == Kind::kDevice) arena_->Free(data_);
}

std::shared_ptr<Buffer> Buffer::OnHost(size_t bytes) {
  void* data = std::malloc(bytes == 0 ? 1 : bytes);
  if (data == nullptr) throw std::bad_alloc();
  return std::make_shared<Buffer>(Kind::kHost, data, nullptr);
}

std::shared_ptr<Buffer> Buffer::OnDevice(std::shared_ptr<Arena> arena, size_t bytes) {
  void* data = arena->Allocate(bytes);
  return std::make_shared<Buffer>(Kind::kDevice, data, std::move(arena));
}

std::shared_ptr<Buffer> Buffer::Borrowed(void* data) {
  return std::make_shared<Buffer>(Kind::kBorrowed, data, nullptr);
}

std::shared_ptr<Buffer> Buffer::Part(std::shared_ptr<Buffer> of, size_t offset) {
  auto part = Borrowed(static_cast<char*>(of->data()) + offset);
  part->whole_ = std::move(of);
  return part;
}

Stream& Stream::Host() {
  static auto* host = new Stream(OfHost());
  return *host;
}

Stream& Stream::At(void* handle) {
  if (handle == nullptr) {
    static auto* shared = new Stream;
    return *shared;
  }
  std::lock_guard<std::mutex> lock(streams_mutex);
  const auto found = Streams().find(handle);
  if (found == Streams().end()) throw DeviceError("a stream that this provider did not make");
  return *found->second;
}

Stream::Stream(size_t memory_limit) : handle_(backend::CreateStream()), arena_(std::make_shared<Arena>(memory_limit)) {
  std::lock_guard<std::mutex> lock(streams_mutex);
  Streams()[handle_] = this;
}

Stream::~Stream() {
  {
    std::lock_guard<std::mutex> lock(streams_mutex);
    Streams().erase(handle_);
  }
  backend::DestroyStream(handle_);
}

void Stream::Copy(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  if (on_host()) {
    std::memcpy(to, from, bytes);
  } else {
    backend::CopyOnDevice(to, from, bytes, handle_);
  }
}

}  // namespace cosetq::ep
