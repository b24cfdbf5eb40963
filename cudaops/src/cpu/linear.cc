#include "linear.h"

#include <atomic>
#include <cstring>
#include <thread>

#include "linear_job.h"

namespace cosetq {
namespace {

constexpr int64_t kSerialWork = 1 << 18;  // products below this stay on the calling thread
constexpr int64_t kDecodeWork = 8;   // decoding a weight costs about as much as this many products
constexpr int kSpins = 1000;         // before a thread that waits lets others run

bool HasIntegerGains(const WeightView& w) { return w.gains == nullptr || w.tables->integer_gains; }

bool HasLookup(const WeightView& w, const LookupKernels& kernels) {
  const bool one_table = w.form != Form::kTwoByte || w.tables->shared;
  return kernels.build != nullptr && w.form != Form::kNibbles && one_table && HasIntegerGains(w) &&
         w.tiles >= kLookupTiles;
}

bool HasPanel(const WeightView& w, const PanelKernels* kernels) {
  return kernels != nullptr && HasIntegerGains(w) && kernels->usable(*w.tables);
}

// Tells the processor that this thread waits for another.
inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Work in two stages. Whoever comes first takes what is left of the first stage, and goes on when
// the others have finished theirs: they run already, so there is an end to it.
struct Stages {
  Job* job;
  Job::Body prepare, body;
  int64_t pieces, total;
  std::atomic<int64_t> taken, done;

  static void Take(void* data, size_t i) {
    Stages& s = *static_cast<Stages*>(data);
    for (int64_t p; (p = s.taken.fetch_add(1, std::memory_order_relaxed)) < s.pieces;) {
      s.prepare(s.job, static_cast<size_t>(p));
      s.done.fetch_add(1, std::memory_order_release);
    }
    for (int spins = 0; s.done.load(std::memory_order_acquire) < s.pieces; ++spins) {
      if (spins >= kSpins) std::this_thread::yield();
      Pause();
    }
    if (i < static_cast<size_t>(s.total)) s.body(s.job, i);
  }
};

// The rows of A turned, in float.
struct Turning {
  const Rotation* rotation;
  const Kernels* kernels;
  const LinearCall* call;
  int64_t cols;
  float* turned;

  static void Row(void* data, size_t row) {
    const Turning& t = *static_cast<Turning*>(data);
    const int64_t at = static_cast<int64_t>(row) * t.cols;
    if (t.call->a == nullptr) {
      t.kernels->to_float(t.call->a_half + at, t.turned + at, t.cols);
    } else {
      std::memcpy(t.turned + at, t.call->a + at, static_cast<size_t>(t.cols) * sizeof(float));
    }
    t.rotation->Apply(t.turned + at);
  }
};

}  // namespace

void Job::SetColumns(int64_t most) {
  columns = most;
  blocks = CeilDiv(call->batch, columns);
}

void Job::Divide(int64_t decode_work, int64_t unit_work) {
  // Blocks are spread over units only as far as the tiles alone do not give enough of them.
  const int64_t least = CeilDiv(blocks, kMaxColumns / columns);
  const int64_t wanted = std::max(least, CeilDiv(kFewUnits, w->tiles));
  const int64_t most = std::max(least, call->batch / kMinRows);
  blocks_per_unit = CeilDiv(blocks, std::max<int64_t>(1, std::min(wanted, most)));
  const int64_t tile_work =
      w->tile * w->groups * kGroup * (blocks_per_unit * columns + decode_work);
  tiles_per_unit = std::max<int64_t>(1, unit_work / tile_work);
}

bool Job::Run(Body body, int64_t total) {
  if (!serial && total > 1) return host->ParallelFor(body, static_cast<size_t>(total), this);
  for (int64_t i = 0; i < total; ++i) body(this, static_cast<size_t>(i));
  return true;
}

bool Job::Run(Body prepare, int64_t pieces, Body body, int64_t total) {
  Stages stages = {this, prepare, body, pieces, total, {0}, {0}};
  const int64_t all = std::max(pieces, total);
  if (!serial && all > 1)
    return host->ParallelFor(&Stages::Take, static_cast<size_t>(all), &stages);
  for (int64_t i = 0; i < total; ++i) Stages::Take(&stages, static_cast<size_t>(i));
  return true;
}

void Job::Store(StoreRowsFn store, int64_t tile, int64_t column, int64_t count,
                const float* lanes) const {
  const int64_t first = tile * w->tile;
  const RowScales rows = {w->row_scales + first, w->bias == nullptr ? nullptr : w->bias + first,
                          std::min<int64_t>(w->tile, w->rows - first)};
  const int64_t at = column * w->rows + first;
  if (call->y != nullptr) return store(lanes, count, rows, call->y + at, w->rows);
  for (int64_t c = 0; c < count; ++c) {
    float out[kTile];
    store(lanes + c * kTile, 1, rows, out, kTile);
    kernels->to_half(out, call->y_half + at + c * w->rows, rows.count);
  }
}

Path ChoosePath(const WeightView& w, const Kernels& kernels, int64_t batch, Accuracy accuracy) {
  if (w.form == Form::kGeneral) return Path::kGeneral;
  const bool fast = accuracy == Accuracy::kFast;
  const LookupKernels& lookup = kernels.lookup[fast ? 0 : 1];
  if (batch <= lookup.most && HasLookup(w, lookup)) return fast ? Path::kLookup8 : Path::kLookup16;
  if (fast && HasPanel(w, kernels.panel[0])) return Path::kInt8;
  if (HasPanel(w, kernels.panel[1])) return Path::kInt16;
  return w.form == Form::kNibbles ? Path::kGeneral : Path::kD4;
}

Outcome RunLinear(const Weight& weight, const Kernels& kernels, const LinearCall& call,
                  Host* host) {
  const WeightView& w = weight.view();
  if (call.batch == 0) return Outcome::kDone;
  const Path path = ChoosePath(w, kernels, call.batch, call.accuracy);
  Job job = {};
  job.w = &w;
  job.kernels = &kernels;
  job.call = &call;
  job.host = host;
  job.SetColumns(kColumns);
  job.serial = w.rows * w.cols < kSerialWork / (call.batch + kDecodeWork);
  LinearCall turned = call;
  if (!weight.rotation().factors.empty()) {
    float* rows = job.Allocate<float>(call.batch * w.cols);
    if (rows == nullptr) return Outcome::kNoMemory;
    Turning turning = {&weight.rotation(), &kernels, &call, w.cols, rows};
    if (call.batch == 1) {
      Turning::Row(&turning, 0);
    } else if (!host->ParallelFor(&Turning::Row, static_cast<size_t>(call.batch), &turning)) {
      return Outcome::kNoThreads;
    }
    turned.a = rows;
    turned.a_half = nullptr;
    job.call = &turned;
  }
  CountCall(kernels.name, path);
  switch (path) {
    case Path::kGeneral:
      return RunDecoded(job, kernels.decode);
    case Path::kD4:
      return RunDecoded(job, kernels.decode_d4);
    case Path::kLookup16:
      return RunLookup(job, 2);
    case Path::kLookup8:
      return RunLookup(job, 1);
    case Path::kInt16:
      return RunPanel(job, 2);
    case Path::kInt8:
      return RunPanel(job, 1);
    case Path::kGather:  // of another operator
      break;
  }
  return Outcome::kDone;
}

}  // namespace cosetq
