#include "large.h"

#include <cuda_fp16.h>

#include <algorithm>

#include "cublas.h"
#include "decode.h"

namespace cosetq::cuda {
namespace {

// Decoded weights in flight: a slice that the second-level cache keeps from one kernel to the next.
constexpr int64_t kSliceBytes = int64_t{32} << 20;

constexpr int kThreads = 256;

template <typename From, typename To>
__global__ void Convert(const From* from, int64_t count, To* to) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  if constexpr (sizeof(From) == 2) {
    to[i] = __half2float(from[i]);
  } else {
    to[i] = __float2half_rn(from[i]);
  }
}

template <typename T>
__global__ void SpreadOffsets(const float* offsets, int64_t rows, T* y) {
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (n >= rows) return;
  if constexpr (sizeof(T) == 2) {
    y[blockIdx.y * rows + n] = __float2half_rn(offsets[n]);
  } else {
    y[blockIdx.y * rows + n] = offsets[n];
  }
}

unsigned Blocks(int64_t count) { return static_cast<unsigned>((count + kThreads - 1) / kThreads); }

// Places in the workspace.
struct Plan {
  bool half;          // decoded weights and the factors of the product
  int64_t slice;      // rows of the weight
  size_t activations; // bytes of converted activations, or 0
  size_t results;     // bytes of results to be converted, or 0
  size_t decoded;     // bytes

  size_t bytes() const { return kCublasWorkspace + activations + results + decoded; }
};

size_t Align(int64_t bytes) { return static_cast<size_t>((bytes + 255) / 256 * 256); }

Plan PlanOf(const DeviceWeight& w, int64_t batch, bool half_a, bool half_y) {
  Plan p;
  p.half = half_a && half_y;
  const int64_t size = p.half ? 2 : 4;
  p.slice = std::max<int64_t>(256, kSliceBytes / (w.cols() * size) / 256 * 256);
  p.slice = std::min(p.slice, (w.rows() + kPanelRows - 1) / kPanelRows * kPanelRows);
  p.decoded = Align(p.slice * w.cols() * size);
  p.activations = p.half || !half_a ? 0 : Align(batch * w.cols() * size);
  p.results = p.half || !half_y ? 0 : Align(batch * w.rows() * size);
  return p;
}

}  // namespace

size_t LargeWorkspace(const DeviceWeight& w, int64_t batch, bool half_a, bool half_y) {
  return PlanOf(w, batch, half_a, half_y).bytes();
}

void LargeLinear(const DeviceWeight& w, const void* a, bool half_a, int64_t batch, void* y, bool half_y, void* workspace,
                 cudaStream_t stream) {
  const Plan p = PlanOf(w, batch, half_a, half_y);
  auto* at = static_cast<unsigned char*>(workspace) + kCublasWorkspace;
  void* decoded = at;
  at += p.decoded;
  if (p.activations > 0) {
    const int64_t count = batch * w.cols();
    Convert<<<Blocks(count), kThreads, 0, stream>>>(static_cast<const __half*>(a), count, reinterpret_cast<float*>(at));
    a = at;
    at += p.activations;
  }
  void* results = p.results > 0 ? at : y;
  const float* offsets = w.packed() ? w.packed_view().offsets : w.general_view().offsets;
  if (offsets != nullptr) {
    constexpr int64_t kMost = 65535;  // of a grid
    for (int64_t first = 0; first < batch; first += kMost) {
      const dim3 grid(Blocks(w.rows()), static_cast<unsigned>(std::min(kMost, batch - first)));
      const int64_t from = first * w.rows();
      if (p.half) {
        SpreadOffsets<<<grid, kThreads, 0, stream>>>(offsets, w.rows(), static_cast<__half*>(results) + from);
      } else {
        SpreadOffsets<<<grid, kThreads, 0, stream>>>(offsets, w.rows(), static_cast<float*>(results) + from);
      }
    }
    CheckLaunch("spread the bias");
  }
  for (int64_t first = 0; first < w.rows(); first += p.slice) {
    const int64_t count = std::min(p.slice, w.rows() - first);
    w.packed() ? Decode(w.packed_view(), first, count, decoded, p.half, stream)
               : Decode(w.general_view(), first, count, decoded, p.half, stream);
    void* to = static_cast<unsigned char*>(results) + first * (p.half ? 2 : 4);
    Products products;
    products.half = p.half;
    products.ten_bits = true;
    products.m = batch;
    products.n = count;
    products.k = w.cols();
    products.add = offsets != nullptr;
    products.a = {a, w.cols()};
    products.b = {decoded, w.cols(), true};
    products.c = to;
    products.ldc = w.rows();
    Multiply(products, workspace, stream);
  }
  if (p.results > 0) {
    const int64_t count = batch * w.rows();
    Convert<<<Blocks(count), kThreads, 0, stream>>>(static_cast<const float*>(results), count, static_cast<__half*>(y));
    CheckLaunch("convert results");
  }
}

}  // namespace cosetq::cuda
