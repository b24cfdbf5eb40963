// A thread codes a group with every gain that is worth trying. Compiled without contraction of products and sums.

#include "encode.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "encode_block.cuh"

namespace cosetq::cuda {
namespace {

constexpr int kThreads = 256;

struct Group {
  float error;
  uint32_t classes[kEncodeBlocks];
  uint8_t gain;
};

__device__ Group EncodeGroup(const EncoderView& codec, const float x[schema::kGroup], float reciprocal) {
  Group best = {INFINITY, {}, 0};
  int overloads = 0;
  for (int g = codec.gain_count - 1; g >= 0 && overloads < codec.max_overloads; --g) {
    const float gain = codec.gains[g], inverse = reciprocal / gain;
    CodedBlock code[kEncodeBlocks];
    float y[kEncodeBlocks][kEncodeDim], bound = 0;
    bool overload = false;
#pragma unroll
    for (int b = 0; b < kEncodeBlocks; ++b) {
      float largest = 0;
#pragma unroll
      for (int j = 0; j < kEncodeDim; ++j) {
        y[b][j] = x[b * kEncodeDim + j] * inverse + codec.centre[j];
        largest = fmaxf(largest, fabsf(y[b][j]));
      }
      // So far out, the nearest point is certainly not in the code, nor a match for the bound.
      const bool beyond = largest >= codec.reach_one + 2;
      code[b] = {0, 0, false};
      if (!beyond) {
        const uint32_t point = NearestPoint(y[b], &code[b].error);
        code[b].classes = Digits(codec, point, &code[b].inside);
      }
      float least = code[b].error;
      if (!code[b].inside) {
        overload = true;
        least = fmaxf(least, Bound(codec, y[b]));
      }
      bound = bound + least;
    }
    const float square = gain * gain;
    if (overload) {
      ++overloads;
      if (square * bound > best.error) continue;
#pragma unroll
      for (int b = 0; b < kEncodeBlocks; ++b) {
        if (!code[b].inside) code[b] = Clamp(codec, y[b][0], y[b][1], y[b][2], y[b][3]);
      }
    }
    const float error = square * (code[0].error + code[1].error);
    if (error <= best.error) best = {error, {code[0].classes, code[1].classes}, static_cast<uint8_t>(g)};
  }
  return best;
}

// Blocks of the grid take groups of an item, grid.y items. Groups of weights out of range are left, and their item is marked.
__global__ void __launch_bounds__(kThreads) EncodeGroups(EncoderView codec, EncodeWork work, float* errors) {
  __shared__ uint32_t tables[kEncodeLevels][256];
  for (int m = 0; m < codec.levels; ++m) {
    if (threadIdx.x < 1u << (kEncodeDim * codec.level[m].shift)) tables[m][threadIdx.x] = codec.level[m].leaders[threadIdx.x];
    codec.level[m].leaders = tables[m];
  }
  __syncthreads();
  const int64_t group = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (group >= work.groups) return;
  for (int64_t item = blockIdx.y; item < work.count; item += gridDim.y) {
    const int64_t row = work.at == nullptr ? item : work.at[item];
    const float step = work.steps[item], reciprocal = 1.0f / step;
    const float limit = fminf(3.402823466e38f, step * codec.max_steps);
    const auto* from = reinterpret_cast<const float4*>(work.rows + (row * work.groups + group) * schema::kGroup);
    const float4 low = from[0], high = from[1];
    const float x[schema::kGroup] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    bool fits = step > 0 && !isinf(step) && !isinf(reciprocal);
#pragma unroll
    for (int j = 0; j < schema::kGroup; ++j) fits = fits && fabsf(x[j]) <= limit;
    const int64_t at = item * work.groups + group;
    if (!fits) {
      errors[at] = -1;
      continue;
    }
    const Group coded = EncodeGroup(codec, x, reciprocal);
    errors[at] = coded.error;
    if (work.indices == nullptr) continue;
    work.gains[at] = coded.gain;
    auto* out = reinterpret_cast<uint32_t*>(work.indices) + at * codec.levels;
    for (int m = 0; m < codec.levels; ++m)
      out[m] = (coded.classes[0] >> (8 * m) & 0xff) | (coded.classes[1] >> (8 * m) & 0xff) << 16;
  }
}

// Adds the errors of an item in the order of its groups, a warp per item.
__global__ void __launch_bounds__(kThreads) SumErrors(EncodeWork work, const float* errors) {
  const int64_t item = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (item >= work.count) return;
  double sum = 0;
  bool taken = true;
  for (int64_t first = 0; first < work.groups; first += 32) {
    const float mine = first + lane < work.groups ? errors[item * work.groups + first + lane] : 0.0f;
    taken = taken && mine >= 0;
    for (int k = 0; k < 32; ++k) sum += static_cast<double>(__shfl_sync(0xffffffffu, mine, k));
  }
  taken = __all_sync(0xffffffffu, taken);
  const auto step = static_cast<double>(work.steps[item]);
  if (lane == 0) work.sse[item] = taken ? sum * step * step : -1;
}

}  // namespace

DeviceEncoder::DeviceEncoder(const cosetq_codec& codec, const int32_t* leaders) {
  const std::unique_ptr<Encoder> host = Encoder::Create(codec, leaders);
  if (host == nullptr) throw Error("no encoder for this codec");
  view_ = host->view();
  for (int m = 0; m < view_.levels; ++m) {
    leaders_[m] = Buffer<uint32_t>(view_.level[m].leaders, size_t{1} << (kEncodeDim * view_.level[m].shift));
    view_.level[m].leaders = leaders_[m].get();
    view_.level[m].columns = nullptr;
  }
}

void DeviceEncoder::Encode(const EncodeWork& work, float* errors, cudaStream_t stream) const {
  if (work.count == 0 || work.groups == 0) return;
  const dim3 grid(static_cast<unsigned>((work.groups + kThreads - 1) / kThreads),
                  static_cast<unsigned>(std::min<int64_t>(work.count, 65535)));
  EncodeGroups<<<grid, kThreads, 0, stream>>>(view_, work, errors);
  CheckLaunch("encode");
  const int64_t per_block = kThreads / 32;
  SumErrors<<<static_cast<unsigned>((work.count + per_block - 1) / per_block), kThreads, 0, stream>>>(work, errors);
  CheckLaunch("encode");
}

int64_t DeviceEncoder::EncodeHost(const EncodeWork& work) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (work.count == 0) return 0;
  const int64_t row_bytes = work.groups * schema::kGroup * static_cast<int64_t>(sizeof(float));
  const int64_t index_bytes = work.groups * view_.levels * kEncodeBlocks * static_cast<int64_t>(sizeof(uint16_t));
  const bool codes = work.indices != nullptr;
  const int64_t item_bytes = 4 * work.groups + (codes ? index_bytes + work.groups : 0) + 16;
  int64_t rows = work.count;
  if (work.at != nullptr) rows = *std::max_element(work.at, work.at + work.count) + 1;
  // The rows, then the results of as many items as fit.
  constexpr int64_t kRoom = int64_t{256} << 20;
  const int64_t most = std::max<int64_t>(1, std::min(work.count, kRoom / item_bytes));
  const auto align = [](int64_t bytes) { return (bytes + 255) / 256 * 256; };
  const auto bytes = static_cast<size_t>(align(rows * row_bytes) + align(4 * most * work.groups) + 3 * align(8 * most) +
                                         align(index_bytes * most) + align(work.groups * most));
  if (scratch_.bytes() < bytes) {
    scratch_ = {};
    scratch_ = Buffer<unsigned char>(bytes);
  }
  unsigned char* next = scratch_.get();
  const auto take = [&](int64_t n) {
    unsigned char* p = next;
    next += align(n);
    return p;
  };
  const auto to_device = [](void* to, const void* from, int64_t n) {
    Check(cudaMemcpyAsync(to, from, static_cast<size_t>(n), cudaMemcpyHostToDevice, cudaStreamPerThread), "copy to the device");
  };
  const auto to_host = [](void* to, const void* from, int64_t n) {
    Check(cudaMemcpyAsync(to, from, static_cast<size_t>(n), cudaMemcpyDeviceToHost, cudaStreamPerThread), "copy from the device");
  };
  EncodeWork part = work;
  auto* device_rows = reinterpret_cast<float*>(take(rows * row_bytes));
  auto* errors = reinterpret_cast<float*>(take(4 * most * work.groups));
  auto* steps = reinterpret_cast<float*>(take(8 * most));
  auto* at = reinterpret_cast<int32_t*>(take(8 * most));
  part.rows = device_rows;
  part.steps = steps;
  part.sse = reinterpret_cast<double*>(take(8 * most));
  part.indices = codes ? reinterpret_cast<uint16_t*>(take(index_bytes * most)) : nullptr;
  part.gains = codes ? take(work.groups * most) : nullptr;
  to_device(device_rows, work.rows, rows * row_bytes);
  for (int64_t first = 0; first < work.count; first += most) {
    part.count = std::min(most, work.count - first);
    to_device(steps, work.steps + first, 4 * part.count);
    part.at = nullptr;
    if (work.at != nullptr) {
      to_device(at, work.at + first, 4 * part.count);
      part.at = at;
    } else {
      part.rows = device_rows + first * work.groups * schema::kGroup;
    }
    Encode(part, errors, cudaStreamPerThread);
    to_host(work.sse + first, part.sse, 8 * part.count);
    if (codes) {
      to_host(work.indices + first * work.groups * view_.levels * kEncodeBlocks, part.indices, index_bytes * part.count);
      to_host(work.gains + first * work.groups, part.gains, work.groups * part.count);
    }
    Check(cudaStreamSynchronize(cudaStreamPerThread), "encode");
  }
  return std::count(work.sse, work.sse + work.count, -1.0);
}

}  // namespace cosetq::cuda
