// The C interface to what ai.coset::Observe has gathered.

#include <algorithm>
#include <exception>
#include <mutex>
#include <new>
#include <string>

#include "cosetq/cosetq.h"
#include "cpu/dispatch.h"
#include "cpu/observe_staging.h"

namespace cosetq {
namespace {

// Calls body with the observation of that tag, all its rows added. No exception may leave.
template <typename Body>
int WithObservation(const char* tag, Body body) {
  if (tag == nullptr) return -1;
  try {
    const auto tagged = FindObservation(tag);
    if (tagged == nullptr) return -1;
    std::lock_guard<std::mutex> lock(tagged->mutex);
    if (tagged->failed) return -1;
    tagged->observation.Finish(ActiveKernels());
    return body(tagged->observation);
  } catch (const std::exception&) {
    return -1;
  }
}

}  // namespace
}  // namespace cosetq

extern "C" void* cosetq_observe_staging_create(void) {
  return new (std::nothrow) cosetq::ObserveStaging;
}

extern "C" void cosetq_observe_staging_free(void* staging) {
  delete static_cast<cosetq::ObserveStaging*>(staging);
}

extern "C" void cosetq_observe_stage(void* staging) {
  cosetq::ThreadStaging() = static_cast<cosetq::ObserveStaging*>(staging);
}

extern "C" int cosetq_observe_commit(void* staging, int32_t threads) {
  try {
    static_cast<cosetq::ObserveStaging*>(staging)->Commit(threads);
    return 0;
  } catch (const std::exception&) {
    return -1;
  }
}

extern "C" int64_t cosetq_observe_tags(char* out, int64_t capacity) {
  try {
    std::string all;
    for (const std::string& tag : cosetq::ObservationTags()) all += tag + '\0';
    const auto size = static_cast<int64_t>(all.size());
    if (out != nullptr && size <= capacity) std::copy(all.begin(), all.end(), out);
    return size;
  } catch (const std::exception&) {
    return -1;
  }
}

extern "C" int cosetq_observe_get(const char* tag, struct cosetq_observation* out) {
  return cosetq::WithObservation(tag, [&](const cosetq::Observation& o) {
    *out = {o.columns(), o.rows(), o.bad_rows(), o.full() ? 1 : 0, o.minimum(), o.maximum(),
            o.weight()};
    return 0;
  });
}

extern "C" int cosetq_observe_sums(const char* tag, double* out) {
  return cosetq::WithObservation(tag, [&](const cosetq::Observation& o) {
    std::copy(o.sums().begin(), o.sums().end(), out);
    return 0;
  });
}

extern "C" int cosetq_observe_moments(const char* tag, int64_t first, int64_t last, double* out) {
  return cosetq::WithObservation(tag, [&](const cosetq::Observation& o) {
    if (first < 0 || last < first || last > o.columns()) return -1;
    o.CopyMoments(first, last, out);
    return 0;
  });
}

extern "C" void cosetq_observe_reset(const char* tag) {
  try {
    if (tag == nullptr) {
      cosetq::ResetObservations();
    } else {
      cosetq::ResetObservation(tag);
    }
  } catch (const std::exception&) {
    // Only a broken mutex throws; there is nobody to tell.
  }
}
