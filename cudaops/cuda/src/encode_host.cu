// Coding rows that lie in the host's memory: what one caller needs for that is a desk, so that callers on several threads keep the device busy together.

#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>

#include "cosetq/schema.h"
#include "encode.h"

namespace cosetq::cuda {
namespace {

// Results of as many items at a time as have room in so many bytes.
constexpr int64_t kRoom = int64_t{256} << 20;

// Twice as many as there are threads that may call: what the others have been at they go on with.
size_t MostDesks() { return std::clamp<size_t>(2 * std::thread::hardware_concurrency(), 4, 64); }

int64_t Aligned(int64_t bytes) { return (bytes + 255) / 256 * 256; }

// Memory of the host that the device copies from and to by itself.
class Pinned {
 public:
  Pinned() = default;
  explicit Pinned(size_t bytes) { Check(cudaHostAlloc(&data_, bytes, cudaHostAllocDefault), "allocate pinned memory"); }
  Pinned& operator=(Pinned&& other) noexcept {
    std::swap(data_, other.data_);
    return *this;
  }
  ~Pinned() { cudaFreeHost(data_); }
  unsigned char* get() const { return static_cast<unsigned char*>(data_); }

 private:
  void* data_ = nullptr;
};

}  // namespace

class DeviceEncoder::Desk {
 public:
  Desk() { Check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "make a stream"); }
  ~Desk() { cudaStreamDestroy(stream_); }
  Desk(const Desk&) = delete;
  Desk& operator=(const Desk&) = delete;

  int64_t id() const { return id_; }

  void Encode(const DeviceEncoder& encoder, const EncodeWork& work, int64_t id) {
    const float* rows = Bring(work, id);
    const int64_t item = Bytes(encoder, work, 1), most = std::max<int64_t>(1, std::min(work.count, kRoom / item));
    for (int64_t first = 0; first < work.count; first += most) EncodeSome(encoder, work, rows, first, std::min(most, work.count - first));
  }

 private:
  static int64_t RowBytes(const EncodeWork& work) { return work.groups * schema::kGroup * static_cast<int64_t>(sizeof(float)); }

  // Where what so many items need lies behind the beginning, and all bytes of it: first what is copied there, last what comes back.
  struct Places {
    int64_t steps, at, errors, sse, indices, gains, end;
  };
  static Places PlacesOf(const DeviceEncoder& encoder, const EncodeWork& work, int64_t count) {
    const int64_t groups = work.indices != nullptr ? count * work.groups : 0;
    Places p = {};
    p.at = p.steps + Aligned(4 * count);
    p.errors = p.at + Aligned(work.at != nullptr ? 4 * count : 0);
    p.sse = p.errors + Aligned(4 * count * work.groups);
    p.indices = p.sse + Aligned(8 * count);
    p.gains = p.indices + Aligned(groups * EncodeSlots(encoder.view_) * static_cast<int64_t>(sizeof(uint16_t)));
    p.end = p.gains + Aligned(groups);
    return p;
  }
  static int64_t Bytes(const DeviceEncoder& encoder, const EncodeWork& work, int64_t count) { return PlacesOf(encoder, work, count).end; }

  void Copy(void* to, const void* from, int64_t bytes, cudaMemcpyKind way) {
    Check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), way, stream_), "copy rows and what they are coded as");
  }

  // The rows of a work on the device: what is there of an id stays there.
  const float* Bring(const EncodeWork& work, int64_t id) {
    int64_t count = work.count;
    if (work.at != nullptr) count = *std::max_element(work.at, work.at + work.count) + 1;
    const auto needed = static_cast<size_t>(count * RowBytes(work));
    size_t there = id != 0 && id == id_ && groups_ == work.groups ? rows_there_ : 0;
    id_ = 0;
    if (rows_.bytes() < needed) {
      rows_ = {};
      rows_ = Buffer<unsigned char>(needed);
      pinned_rows_ = {};
      pinned_rows_ = Pinned(needed);
      there = 0;
    }
    if (there < needed) {
      std::memcpy(pinned_rows_.get() + there, reinterpret_cast<const char*>(work.rows) + there, needed - there);
      Copy(rows_.get() + there, pinned_rows_.get() + there, static_cast<int64_t>(needed - there), cudaMemcpyHostToDevice);
    }
    id_ = id;
    groups_ = work.groups;
    rows_there_ = std::max(there, needed);
    return reinterpret_cast<const float*>(rows_.get());
  }

  void EncodeSome(const DeviceEncoder& encoder, const EncodeWork& work, const float* rows, int64_t first, int64_t count) {
    const Places p = PlacesOf(encoder, work, count);
    if (results_.bytes() < static_cast<size_t>(p.end)) {
      results_ = {};
      results_ = Buffer<unsigned char>(static_cast<size_t>(p.end));
      pinned_ = {};
      pinned_ = Pinned(static_cast<size_t>(p.end));
    }
    unsigned char *device = results_.get(), *host = pinned_.get();
    EncodeWork part = work;
    part.count = count;
    part.rows = rows;
    part.steps = reinterpret_cast<float*>(device + p.steps);
    std::memcpy(host + p.steps, work.steps + first, static_cast<size_t>(4 * count));
    if (work.at != nullptr) {
      part.at = reinterpret_cast<int32_t*>(device + p.at);
      std::memcpy(host + p.at, work.at + first, static_cast<size_t>(4 * count));
    } else {
      part.rows += first * work.groups * schema::kGroup;
    }
    part.sse = reinterpret_cast<double*>(device + p.sse);
    const bool codes = work.indices != nullptr;
    if (codes) {
      part.indices = reinterpret_cast<uint16_t*>(device + p.indices);
      part.gains = device + p.gains;
    }
    Copy(device, host, p.errors, cudaMemcpyHostToDevice);
    encoder.Encode(part, reinterpret_cast<float*>(device + p.errors), stream_);
    Copy(host + p.sse, device + p.sse, (codes ? p.end : p.indices) - p.sse, cudaMemcpyDeviceToHost);
    Check(cudaStreamSynchronize(stream_), "encode");
    std::memcpy(work.sse + first, host + p.sse, static_cast<size_t>(8 * count));
    if (!codes) return;
    const int64_t slots = work.groups * EncodeSlots(encoder.view_);
    std::memcpy(work.indices + first * slots, host + p.indices, static_cast<size_t>(count * slots) * sizeof(uint16_t));
    std::memcpy(work.gains + first * work.groups, host + p.gains, static_cast<size_t>(count * work.groups));
  }

  cudaStream_t stream_ = nullptr;
  Buffer<unsigned char> rows_, results_;
  Pinned pinned_rows_, pinned_;
  int64_t id_ = 0, groups_ = 0;  // of the rows that are there
  size_t rows_there_ = 0;        // bytes
};

DeviceEncoder::DeviceEncoder(const cosetq_codec& codec, const int32_t* leaders) {
  const std::unique_ptr<Encoder> host = Encoder::Create(codec, leaders);
  if (host == nullptr) throw Error("no encoder for this codec");
  view_ = host->view();
  for (int m = 0; m < view_.levels && view_.dim == kEncodeDim; ++m) {
    leaders_[m] = Buffer<uint32_t>(view_.level[m].leaders, size_t{1} << (kEncodeDim * view_.level[m].shift));
    view_.level[m].leaders = leaders_[m].get();
    view_.level[m].columns = nullptr;
  }
}

DeviceEncoder::~DeviceEncoder() = default;

std::unique_ptr<DeviceEncoder::Desk> DeviceEncoder::Take(int64_t id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  auto found = std::find_if(desks_.begin(), desks_.end(), [&](const auto& desk) { return desk->id() == id; });
  if (found == desks_.end()) {
    if (made_ < MostDesks() || desks_.empty()) {
      ++made_;
      return nullptr;
    }
    found = desks_.begin();  // the one that nobody has used for longest
  }
  std::unique_ptr<Desk> desk = std::move(*found);
  desks_.erase(found);
  return desk;
}

int64_t DeviceEncoder::EncodeHost(const EncodeWork& work, int64_t id) {
  if (work.count == 0) return 0;
  std::unique_ptr<Desk> desk = Take(id);
  try {
    if (desk == nullptr) desk = std::make_unique<Desk>();
    desk->Encode(*this, work, id);
  } catch (...) {  // it is given up
    const std::lock_guard<std::mutex> lock(mutex_);
    --made_;
    throw;
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    desks_.push_back(std::move(desk));
  }
  return std::count(work.sse, work.sse + work.count, -1.0);
}

}  // namespace cosetq::cuda
