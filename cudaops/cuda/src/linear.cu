#include "linear.h"

#include <algorithm>

#include "column_bytes.cuh"
#include "columns.h"
#include "cublas.h"
#include "device.h"
#include "general.h"
#include "large.h"
#include "middle.h"
#include "rotate.h"
#include "small.h"
#include "small_lanes.h"
#include "wide.h"

namespace cosetq::cuda {

std::atomic<int64_t>& Calls(Path path) {
  static std::atomic<int64_t> calls[kPaths];
  return calls[path];
}

namespace {

// Rows from which on bytes of activations are worth a kernel that makes them: 512 are, as measured, and between 128 and those nobody looked.
constexpr int64_t kMinByteColumns = 256;

bool HasColumns(const DeviceWeight& w) { return w.packed() && IsColumns(w.packed_view().form); }

bool HasBytes(const DeviceWeight& w) { return w.packed() && (!HasColumns(w) || HasColumnBytes(w.packed_view())); }

// Whether a call multiplies weights of single columns by activations in float16.
bool TakesHalves(const DeviceWeight& w, int64_t batch, bool fast) {
  return HasColumns(w) && !(HasBytes(w) && (batch <= kMaxSmallBatch || (fast && batch >= kMinByteColumns)));
}

// Which path a call takes, unless the kernel of middle.h takes it, which needs no workspace.
Path PathOf(const DeviceWeight& w, int64_t batch, bool fast) {
  if (HasColumns(w)) return HasBytes(w) && batch <= kMaxSmallBatch ? kSmall : kWide;
  // Two calls of the kernel for few rows take less than one of the kernel for many, unless that multiplies bytes.
  if (w.packed() && batch <= kMaxSmallBatch * (fast ? 1 : 2)) return kSmall;
  if (w.packed() && CurrentDevice().hopper) return kWide;
  // cuBLAS wants rows of 16 bytes for its fast kernels.
  if (batch >= kMinLargeBatch && w.cols() % 8 == 0 && HasCublas()) return kLarge;
  return w.packed() ? kSmall : kGeneral;
}

// Whether the kernels of middle.h are asked first: with rows at a, or rotated ones.
bool AsksMiddle(const DeviceWeight& w, const void* a, bool half, int64_t batch) {
  return HasBytes(w) && (w.turn().factors == nullptr ? TakesMiddle(w.packed_view(), a, half, batch) : TakesMiddle(w.packed_view(), nullptr, false, batch));
}

// Rows, and columns of each, from and up to which the kernel of wide.h that makes them ready rotates them in less time than one for that alone:
// 512 rows of 4096 take as long either way, of 14336 longer.
constexpr int64_t kMinTurnedBatch = 1024, kMaxTurnedCols = 8192;

// Whether activations are rotated by the kernel that makes them ready, a row in shared memory for each of its blocks. Those of wide.h are small:
// a processor must have many of them.
bool TurnsRows(const DeviceWeight& w, int64_t batch, bool fast) {
  if (w.turn().factors == nullptr || AsksMiddle(w, nullptr, false, batch)) return false;
  if (TakesHalves(w, batch, fast)) return HasRoomToTurn(w.cols());
  return PathOf(w, batch, fast) == kWide && batch >= kMinTurnedBatch && w.cols() <= kMaxTurnedCols;
}

// Bytes of rotated activations, in float, where a kernel does nothing else.
size_t RotatedBytes(const DeviceWeight& w, int64_t batch, bool fast) {
  if (w.turn().factors == nullptr || TurnsRows(w, batch, fast)) return 0;
  return static_cast<size_t>((batch * w.cols() * 4 + 255) / 256 * 256);
}

}  // namespace

size_t LinearWorkspace(const DeviceWeight& w, int64_t batch, bool half, bool fast) {
  const size_t rotated = RotatedBytes(w, batch, fast);
  if (TakesHalves(w, batch, fast)) return rotated + ColumnsWorkspace(w.packed_view(), batch);
  switch (PathOf(w, batch, fast)) {
    case kSmall:
      return rotated + SmallWorkspace(w.packed_view(), batch);
    case kWide:
      return rotated + WideWorkspace(w.packed_view(), batch, fast, half && w.turn().factors == nullptr);
    case kLarge:
      return rotated + LargeWorkspace(w, batch, half && rotated == 0, half);
    default:
      return rotated;
  }
}

void Linear(const DeviceWeight& w, const LinearCall& call, cudaStream_t stream) {
  if (call.batch == 0) return;
  if (call.workspace_bytes < LinearWorkspace(w, call.batch, call.half, call.fast))
    throw Error("the workspace is too small: see cosetq_cuda_linear_workspace");
  const void* a = call.a;
  bool half_a = call.half;
  Turn turn = w.turn();
  const bool asks_middle = AsksMiddle(w, a, half_a, call.batch);
  if (turn.factors != nullptr && !TurnsRows(w, call.batch, call.fast)) {
    Rotate(turn, call.a, call.half, call.batch, w.cols(), static_cast<float*>(call.workspace), stream);
    a = call.workspace;
    half_a = false;
    turn = {};
  }
  void* workspace = static_cast<unsigned char*>(call.workspace) + RotatedBytes(w, call.batch, call.fast);
  if (asks_middle) {
    const MiddleKernel taken = MiddleLinear(w.packed_view(), a, half_a, static_cast<int>(call.batch), call.y, call.half, stream);
    if (taken != kNoMiddle) {
      ++Calls(taken == kDirectMiddle ? kDirect : kMiddle);
      return;
    }
  }
  Path path = PathOf(w, call.batch, call.fast);
  if (TakesHalves(w, call.batch, call.fast)) {
    ColumnsLinear(w.packed_view(), turn, a, half_a, call.batch, call.y, call.half, workspace, stream);
  } else if (path == kSmall) {
    const auto row = [](const void* p, int64_t first, int64_t cols, bool half) {
      return static_cast<const char*>(p) + first * cols * (half ? 2 : 4);
    };
    const auto by_lanes = [&](const void* rows, int count, void* y) {
      return half_a ? SmallLanesHalves(w.packed_view(), rows, count, y, stream) : SmallLanesFloats(w.packed_view(), rows, count, y, call.half, stream);
    };
    for (int64_t first = 0; first < call.batch; first += kMaxSmallBatch) {
      const int count = static_cast<int>(std::min<int64_t>(kMaxSmallBatch, call.batch - first));
      const void* rows = row(a, first, w.cols(), half_a);
      void* y = const_cast<char*>(row(call.y, first, w.rows(), call.half));
      if (TakesLanes(w.packed_view(), rows, half_a, count) && by_lanes(rows, count, y)) {
        ++Calls(kLanes);
      } else if (SmallLinear(w.packed_view(), rows, half_a, count, y, call.half, workspace, stream)) {
        ++Calls(kSmall);
      } else {
        throw Error("the device has too little shared memory");
      }
    }
    return;
  } else if (path == kWide) {
    const WideKernel taken = WideLinear(w.packed_view(), turn, a, half_a, call.batch, call.fast, call.y, call.half, workspace, stream);
    path = taken == kLyingRows ? kLying : taken == kDividedTiles ? kDivided : kWide;
  } else if (path == kLarge) {
    LargeLinear(w, a, half_a, call.batch, call.y, call.half, workspace, stream);
  } else {
    GeneralLinear(w.general_view(), a, half_a, call.batch, call.y, call.half, stream);
  }
  ++Calls(path);
}

}  // namespace cosetq::cuda
