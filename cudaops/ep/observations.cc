#include "observations.h"

#include <algorithm>
#include <map>
#include <new>
#include <stdexcept>

#include "backend.h"
#include "cosetq/cosetq.h"

namespace cosetq::ep {
namespace {

struct Registry {
  std::mutex mutex;
  std::map<std::string, std::shared_ptr<Observation>> observations;
};

// Never destroyed: the device may be gone by the end of the process.
Registry& TheRegistry() {
  static auto* registry = new Registry;
  return *registry;
}

// Allocates zeros, which are the owner's even if they cannot be written.
void Zeros(size_t bytes, void** data) {
  const std::vector<char> zeros(std::min(bytes, size_t{16} << 20));
  *data = backend::Allocate(bytes);
  void* stream = Stream::At(nullptr).handle();
  for (size_t at = 0; at < bytes; at += zeros.size())
    backend::CopyToDevice(static_cast<char*>(*data) + at, zeros.data(), std::min(zeros.size(), bytes - at), stream);
  backend::Synchronize(stream);
}

}  // namespace

Observation::Observation(int64_t columns, bool full) : columns(columns), full(full) {
  try {
    last_ = backend::CreateEvent();
    Zeros(sizeof(Totals), &totals_);
    Zeros(static_cast<size_t>(columns) * sizeof(double), &sums_);
    Zeros(static_cast<size_t>(Place(columns)) * sizeof(double), &moments_);
  } catch (...) {
    Clear();
    throw;
  }
}

Observation::~Observation() { Clear(); }

void Observation::Clear() {
  const backend::OnDevice on_device;
  for (void* data : {totals_, sums_, moments_}) {
    if (data != nullptr) backend::Free(data);
  }
  if (last_ != nullptr) backend::DestroyEvent(last_);
}

void Observation::Begin(Stream& stream) {
  is_known_ = false;
  backend::WaitOnStream(last_, stream.handle());
}
void Observation::End(Stream& stream) { backend::Record(last_, stream.handle()); }

void Observation::Read(const void* from, size_t bytes, void* to) {
  backend::WaitOnHost(last_);
  void* stream = Stream::At(nullptr).handle();
  backend::CopyToHost(to, from, bytes, stream);
  backend::Synchronize(stream);
}

Totals Observation::ReadTotals() {
  const std::lock_guard<std::mutex> lock(mutex);
  if (!is_known_) Read(totals_, sizeof(known_), &known_);
  is_known_ = true;
  return known_;
}
void Observation::ReadSums(double* out) {
  const std::lock_guard<std::mutex> lock(mutex);
  Read(sums_, static_cast<size_t>(columns) * sizeof(double), out);
}
void Observation::ReadMoments(int64_t first, int64_t last, double* out) {
  const std::lock_guard<std::mutex> lock(mutex);
  Read(moments() + Place(first), static_cast<size_t>(Place(last) - Place(first)) * sizeof(double), out);
}

std::shared_ptr<Observation> ObservationFor(const std::string& tag, int64_t columns, bool full) {
  Registry& registry = TheRegistry();
  const std::lock_guard<std::mutex> lock(registry.mutex);
  auto& entry = registry.observations[tag];
  if (entry == nullptr) {
    try {
      entry = std::make_shared<Observation>(columns, full);
    } catch (const std::bad_alloc&) {
      registry.observations.erase(tag);
      throw DeviceError("out of memory for the second moments of " + tag + ", " + std::to_string(columns) +
                        " columns: `cosetq calibrate --shard` divides the activations among several runs");
    } catch (...) {
      registry.observations.erase(tag);
      throw;
    }
  } else if (entry->columns != columns || entry->full != full) {
    throw std::invalid_argument("the tag " + tag + " is in use for " + std::to_string(entry->columns) + " columns or in another mode; this input has " +
                                std::to_string(columns));
  }
  return entry;
}

namespace {

// Calls body with the observation of that tag. No exception may leave.
template <typename Body>
int WithObservation(const char* tag, Body body) {
  try {
    const backend::OnDevice on_device;
    std::shared_ptr<Observation> found;
    {
      Registry& registry = TheRegistry();
      const std::lock_guard<std::mutex> lock(registry.mutex);
      const auto at = registry.observations.find(tag == nullptr ? "" : tag);
      if (at == registry.observations.end()) return -1;
      found = at->second;
    }
    return body(*found);
  } catch (const std::exception&) {
    return -1;
  }
}

}  // namespace
}  // namespace cosetq::ep

extern "C" {

int64_t cosetq_observe_tags(char* out, int64_t capacity) {
  try {
    std::string all;
    cosetq::ep::Registry& registry = cosetq::ep::TheRegistry();
    const std::lock_guard<std::mutex> lock(registry.mutex);
    for (const auto& entry : registry.observations) all += entry.first + '\0';
    const auto size = static_cast<int64_t>(all.size());
    if (out != nullptr && size <= capacity) std::copy(all.begin(), all.end(), out);
    return size;
  } catch (const std::exception&) {
    return -1;
  }
}

int cosetq_observe_get(const char* tag, struct cosetq_observation* out) {
  return cosetq::ep::WithObservation(tag, [&](cosetq::ep::Observation& o) {
    const cosetq::ep::Totals t = o.ReadTotals();
    *out = {o.columns, t.rows, t.bad_rows, o.full ? 1 : 0, t.minimum, t.maximum, t.weight};
    return 0;
  });
}

int cosetq_observe_sums(const char* tag, double* out) {
  return cosetq::ep::WithObservation(tag, [&](cosetq::ep::Observation& o) {
    o.ReadSums(out);
    return 0;
  });
}

int cosetq_observe_moments(const char* tag, int64_t first, int64_t last, double* out) {
  return cosetq::ep::WithObservation(tag, [&](cosetq::ep::Observation& o) {
    if (first < 0 || last < first || last > o.columns) return -1;
    o.ReadMoments(first, last, out);
    return 0;
  });
}

void cosetq_observe_reset(const char* tag) {
  try {
    std::map<std::string, std::shared_ptr<cosetq::ep::Observation>> gone;  // which takes time, after the lock
    cosetq::ep::Registry& registry = cosetq::ep::TheRegistry();
    const std::lock_guard<std::mutex> lock(registry.mutex);
    if (tag == nullptr) {
      gone.swap(registry.observations);
    } else {
      registry.observations.erase(tag);
    }
  } catch (const std::exception&) {
    // Only a broken mutex throws; there is nobody to tell.
  }
}

}  // extern "C"
