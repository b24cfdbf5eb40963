// Memory and order of work on the device.

#ifndef COSETQ_EP_STREAM_H_
#define COSETQ_EP_STREAM_H_

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>

namespace cosetq::ep {

// Keeps freed blocks for the next allocation. All uses of its blocks must be in the order of one
// stream: then a block may be given out again before the work that used it has run.
class Arena {
 public:
  // One with a limit, in bytes, never has more, and keeps it, where recorded work expects it. Others give back what lies idle when the
  // device's memory runs out.
  explicit Arena(size_t limit = 0) : limit_(limit) {}
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  void* Allocate(size_t bytes);
  void Free(void* data);

 private:
  const size_t limit_;
  size_t size_ = 0;
  std::mutex mutex_;
  std::multimap<size_t, void*> free_;
  std::unordered_map<void*, size_t> sizes_;
};

// A block of memory, freed with its last owner.
class Buffer {
  enum class Kind { kHost, kDevice, kBorrowed };

 public:
  // By the functions below.
  Buffer(Kind kind, void* data, std::shared_ptr<Arena> arena);
  static std::shared_ptr<Buffer> OnHost(size_t bytes);
  static std::shared_ptr<Buffer> OnDevice(std::shared_ptr<Arena> arena, size_t bytes);
  static std::shared_ptr<Buffer> Borrowed(void* data);
  // What begins so many bytes behind another one's begin, which stays as long.
  static std::shared_ptr<Buffer> Part(std::shared_ptr<Buffer> of, size_t offset);
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void* data() const { return data_; }
  // Where the block begins that this is a part of, or all.
  const void* begin() const { return whole_ != nullptr ? whole_->begin() : data_; }

 private:
  Kind kind_;
  void* data_;
  std::shared_ptr<Arena> arena_;
  std::shared_ptr<Buffer> whole_;
};

// Where work goes: a stream of the device, or the host itself, which the small integer computations
// on shapes run on.
class Stream {
 public:
  static Stream& Host();
  // The stream behind a handle that ONNX Runtime was given; for null, one that everybody shares.
  static Stream& At(void* handle);

  explicit Stream(size_t memory_limit = 0);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  bool on_host() const { return handle_ == nullptr; }
  void* handle() const { return handle_; }
  const std::shared_ptr<Arena>& arena() const { return arena_; }
  void Copy(void* to, const void* from, size_t bytes);

 private:
  struct OfHost {};
  explicit Stream(OfHost) : handle_(nullptr) {}
  void* handle_;
  std::shared_ptr<Arena> arena_;
};

}  // namespace cosetq::ep

#endif  // COSETQ_EP_STREAM_H_
