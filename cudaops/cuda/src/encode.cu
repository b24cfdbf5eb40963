// Compiled without contraction of products and sums.

#include "encode.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "encode_block.cuh"

namespace cosetq::cuda {
namespace {

constexpr int kThreads = 256;

// What a block of threads shares: the codec, and the blocks to clamp, of all threads together, so that whole warps clamp.
struct Shared {
  EncoderView codec;
  uint32_t tables[kEncodeLevels][256];
  int count;
  float y[kEncodeDim][kThreads * kEncodeBlocks];
  uint16_t place[kThreads * kEncodeBlocks];  // thread and block
  float error[kThreads * kEncodeBlocks];     // of a place
  uint32_t classes[kThreads * kEncodeBlocks];
};

// Codes the group x with every gain that is worth trying. All threads of the block come here, those without a group with active
// false.
__device__ void EncodeGroup(Shared& shared, bool active, const float x[schema::kGroup], float reciprocal, float* best,
                            uint32_t best_classes[kEncodeBlocks], uint8_t* best_gain) {
  const EncoderView& codec = shared.codec;
  *best = INFINITY;
  int overloads = 0;
  for (int g = codec.gain_count - 1; g >= 0; --g) {
    if (threadIdx.x == 0) shared.count = 0;
    __syncthreads();
    const bool trying = active && overloads < codec.max_overloads;
    const float gain = codec.gains[g], square = gain * gain;
    CodedBlock code[kEncodeBlocks];
    bool queued[kEncodeBlocks] = {}, hopeless = false;
    if (trying) {
      const float inverse = reciprocal / gain;
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
        code[b] = {0, 0, false};
        if (!(largest >= codec.reach_one + 2)) {
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
      overloads += overload ? 1 : 0;
      hopeless = overload && square * bound > *best;
#pragma unroll
      for (int b = 0; b < kEncodeBlocks; ++b) {
        queued[b] = !hopeless && !code[b].inside;
        if (!queued[b]) continue;
        const int at = atomicAdd(&shared.count, 1);
        shared.place[at] = static_cast<uint16_t>(threadIdx.x * kEncodeBlocks + b);
#pragma unroll
        for (int j = 0; j < kEncodeDim; ++j) shared.y[j][at] = y[b][j];
      }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < shared.count; i += kThreads) {
      const CodedBlock clamped = Clamp(codec, shared.y[0][i], shared.y[1][i], shared.y[2][i], shared.y[3][i]);
      shared.error[shared.place[i]] = clamped.error;
      shared.classes[shared.place[i]] = clamped.classes;
    }
    __syncthreads();
    if (!trying || hopeless) continue;
#pragma unroll
    for (int b = 0; b < kEncodeBlocks; ++b) {
      if (!queued[b]) continue;
      code[b].error = shared.error[threadIdx.x * kEncodeBlocks + b];
      code[b].classes = shared.classes[threadIdx.x * kEncodeBlocks + b];
    }
    const float error = square * (code[0].error + code[1].error);
    if (error <= *best) {
      *best = error;
      *best_gain = static_cast<uint8_t>(g);
#pragma unroll
      for (int b = 0; b < kEncodeBlocks; ++b) best_classes[b] = code[b].classes;
    }
  }
}

// A thread takes a group; groups are numbered through all items. Groups of weights out of range are left, with an error of -1.
__global__ void __launch_bounds__(kThreads) EncodeGroups(EncoderView codec, EncodeWork work, float* errors) {
  __shared__ Shared shared;
  for (int m = 0; m < codec.levels; ++m) {
    if (threadIdx.x < 1u << (kEncodeDim * codec.level[m].shift))
      shared.tables[m][threadIdx.x] = codec.level[m].leaders[threadIdx.x];
  }
  if (threadIdx.x == 0) {
    shared.codec = codec;
    for (int m = 0; m < codec.levels; ++m) shared.codec.level[m].leaders = shared.tables[m];
  }
  __syncthreads();
  const int64_t total = work.count * work.groups;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads; first < total;
       first += static_cast<int64_t>(gridDim.x) * kThreads) {
    const int64_t at = first + threadIdx.x;
    float x[schema::kGroup] = {}, reciprocal = 0;
    bool fits = false;
    if (at < total) {
      const int64_t item = at / work.groups, row = work.at == nullptr ? item : work.at[item];
      const float step = work.steps[item];
      reciprocal = 1.0f / step;
      const float limit = fminf(3.402823466e38f, step * codec.max_steps);
      const auto* from =
          reinterpret_cast<const float4*>(work.rows + (row * work.groups + at % work.groups) * schema::kGroup);
      const float4 low = from[0], high = from[1];
      x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
      x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
      fits = step > 0 && !isinf(step) && !isinf(reciprocal);
#pragma unroll
      for (int j = 0; j < schema::kGroup; ++j) fits = fits && fabsf(x[j]) <= limit;
    }
    float error;
    uint32_t classes[kEncodeBlocks];
    uint8_t gain = 0;
    EncodeGroup(shared, fits, x, reciprocal, &error, classes, &gain);
    if (at >= total) continue;
    errors[at] = fits ? error : -1;
    if (work.indices == nullptr || !fits) continue;
    work.gains[at] = gain;
    auto* out = reinterpret_cast<uint32_t*>(work.indices) + at * codec.levels;
    for (int m = 0; m < codec.levels; ++m)
      out[m] = (classes[0] >> (8 * m) & 0xff) | (classes[1] >> (8 * m) & 0xff) << 16;
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
  const int64_t blocks = (work.count * work.groups + kThreads - 1) / kThreads;
  EncodeGroups<<<static_cast<unsigned>(std::min<int64_t>(blocks, int64_t{1} << 20)), kThreads, 0, stream>>>(view_, work, errors);
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
