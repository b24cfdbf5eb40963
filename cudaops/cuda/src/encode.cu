// Compiled without contraction of products and sums.

#include "encode.h"

#include <algorithm>
#include <cmath>

#include "encode_block.cuh"
#include "encode_runs.cuh"

namespace cosetq::cuda {
namespace {

constexpr int kThreads = 256;

// Blocks to a processor: what its registers give up for them is less than what more warps hide.
constexpr int kBlocks = 4;

// Groups that a thread codes side by side.
constexpr int kPer = 2;

// Blocks that a warp has to clamp, gathered so that most lanes clamp one.
struct Queue {
  static constexpr int kRoom = 32 * kPer * kEncodeBlocks;
  float y[kEncodeDim][kRoom];
  uint8_t place[kRoom];    // (group * kEncodeBlocks + block) * 32 + lane
  float error[kRoom];      // of a place
  uint32_t classes[kRoom];
};

// A group of weights on its way.
struct Group {
  float x[schema::kGroup];
  float reciprocal;
  bool fits;
  float best;
  uint32_t classes[kEncodeBlocks];
  uint8_t gain;
  int overloads;
};

// Group at of those of all items.
__device__ __forceinline__ Group LoadGroup(const EncoderView& codec, const EncodeWork& work, int64_t at) {
  Group group = {};
  group.best = INFINITY;
  const int64_t item = at / work.groups, row = work.at == nullptr ? item : work.at[item];
  const float step = work.steps[item];
  group.reciprocal = 1.0f / step;
  const float limit = fminf(3.402823466e38f, step * codec.max_steps);
  const auto* from = reinterpret_cast<const float4*>(work.rows + (row * work.groups + at % work.groups) * schema::kGroup);
  const float4 low = from[0], high = from[1];
  group.x[0] = low.x, group.x[1] = low.y, group.x[2] = low.z, group.x[3] = low.w;
  group.x[4] = high.x, group.x[5] = high.y, group.x[6] = high.z, group.x[7] = high.w;
  group.fits = step > 0 && !isinf(step) && !isinf(group.reciprocal);
#pragma unroll
  for (int j = 0; j < schema::kGroup; ++j) group.fits = group.fits && fabsf(group.x[j]) <= limit;
  return group;
}

// Codes the groups with every gain that is worth trying. All lanes of the warp come here.
template <int kShape>
__device__ __forceinline__ void EncodeGroup(const EncoderView& codec, const Leaders& leaders, Queue& queue,
                                            Group (&groups)[kPer]) {
  const int lane = threadIdx.x % 32;
  const uint32_t below = (1u << lane) - 1;
  for (int g = codec.gain_count - 1; g >= 0; --g) {
    bool any = false;
#pragma unroll
    for (int i = 0; i < kPer; ++i) any = any || (groups[i].fits && groups[i].overloads < codec.max_overloads);
    if (!__any_sync(0xffffffffu, any)) break;
    const float gain = codec.gains[g], square = gain * gain;
    CodedBlock code[kPer][kEncodeBlocks];
    bool queued[kPer][kEncodeBlocks], skip[kPer];
    int count = 0;
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      Group& group = groups[i];
      const bool trying = group.fits && group.overloads < codec.max_overloads;
      const float inverse = group.reciprocal / gain;
      float y[kEncodeBlocks][kEncodeDim], bound = 0;
      bool overload = false;
#pragma unroll
      for (int b = 0; b < kEncodeBlocks; ++b) {
        float largest = 0;
#pragma unroll
        for (int j = 0; j < kEncodeDim; ++j) {
          y[b][j] = group.x[b * kEncodeDim + j] * inverse + codec.centre[j];
          largest = fmaxf(largest, fabsf(y[b][j]));
        }
        // So far out, the nearest point is certainly not in the code, nor a match for the bound.
        code[i][b] = {0, 0, false, 0};
        if (!(largest >= codec.reach_one + 2)) {
          const uint32_t point = NearestPoint(y[b], &code[i][b].error);
          code[i][b].classes = Digits<kShape>(codec, leaders, point, &code[i][b].inside);
        }
        float least = code[i][b].error;
        if (!code[i][b].inside) {
          overload = true;
          least = fmaxf(least, Bound(codec, y[b]));
        }
        bound = bound + least;
      }
      group.overloads += trying && overload ? 1 : 0;
      skip[i] = !trying || (overload && square * bound > group.best);
#pragma unroll
      for (int b = 0; b < kEncodeBlocks; ++b) {
        queued[i][b] = !skip[i] && !code[i][b].inside;
        const uint32_t wanted = __ballot_sync(0xffffffffu, queued[i][b]);
        if (queued[i][b]) {
          const int at = count + __popc(wanted & below);
          queue.place[at] = static_cast<uint8_t>((i * kEncodeBlocks + b) * 32 + lane);
#pragma unroll
          for (int j = 0; j < kEncodeDim; ++j) queue.y[j][at] = y[b][j];
        }
        count += __popc(wanted);
      }
    }
    __syncwarp();
    for (int k = lane; k < count; k += 32) {
      const float y[kEncodeDim] = {queue.y[0][k], queue.y[1][k], queue.y[2][k], queue.y[3][k]};
      const CodedBlock clamped = Clamp<kShape>(codec, leaders, y);
      queue.error[queue.place[k]] = clamped.error;
      queue.classes[queue.place[k]] = clamped.classes;
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
#pragma unroll
      for (int b = 0; b < kEncodeBlocks; ++b) {
        if (!queued[i][b]) continue;
        code[i][b].error = queue.error[(i * kEncodeBlocks + b) * 32 + lane];
        code[i][b].classes = queue.classes[(i * kEncodeBlocks + b) * 32 + lane];
      }
      const float error = square * (code[i][0].error + code[i][1].error);
      if (skip[i] || !(error <= groups[i].best)) continue;
      groups[i].best = error;
      groups[i].gain = static_cast<uint8_t>(g);
#pragma unroll
      for (int b = 0; b < kEncodeBlocks; ++b) groups[i].classes[b] = code[i][b].classes;
    }
  }
}

// A thread takes kPer groups at a time; groups are numbered through all items. Groups of weights out of range are left, with an
// error of -1.
template <int kShape>
__global__ void __launch_bounds__(kThreads, kBlocks) EncodeGroups(const __grid_constant__ EncoderView codec, EncodeWork work,
                                                         float* errors) {
  __shared__ Leaders leaders;
  __shared__ Queue queues[kThreads / 32];
  const int levels = Levels<kShape>(codec);
  for (int m = 0; m < levels; ++m) {
    if (threadIdx.x < 1u << (kEncodeDim * codec.level[m].shift)) leaders[m][threadIdx.x] = codec.level[m].leaders[threadIdx.x];
  }
  __syncthreads();
  const int64_t total = work.count * work.groups;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads * kPer; first < total;
       first += static_cast<int64_t>(gridDim.x) * kThreads * kPer) {
    Group groups[kPer];
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      const int64_t at = first + i * kThreads + threadIdx.x;
      groups[i] = {};
      if (at < total) groups[i] = LoadGroup(codec, work, at);
    }
    EncodeGroup<kShape>(codec, leaders, queues[threadIdx.x / 32], groups);
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      const int64_t at = first + i * kThreads + threadIdx.x;
      const Group& group = groups[i];
      if (at >= total) continue;
      errors[at] = group.fits ? group.best : -1;
      if (work.indices == nullptr || !group.fits) continue;
      work.gains[at] = group.gain;
      auto* out = reinterpret_cast<uint32_t*>(work.indices) + at * levels;
      for (int m = 0; m < levels; ++m)
        out[m] = (group.classes[0] >> (8 * m) & 0xff) | (group.classes[1] >> (8 * m) & 0xff) << 16;
    }
  }
}

// The same of runs, a thread per group.
__global__ void __launch_bounds__(kThreads) EncodeRuns(const __grid_constant__ EncoderView codec, EncodeWork work, float* errors) {
  const int64_t total = work.count * work.groups;
  for (int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; at < total; at += static_cast<int64_t>(gridDim.x) * kThreads) {
    Group group = LoadGroup(codec, work, at);
    for (int g = codec.gain_count - 1; g >= 0 && group.fits && group.overloads < codec.max_overloads; --g) {
      const float gain = codec.gains[g], inverse = group.reciprocal / gain;
      float sum = 0;
      uint32_t classes = 0;
      bool outside = false;
#pragma unroll
      for (int j = 0; j < schema::kGroup; ++j) {
        const float y = group.x[j] * inverse + codec.centre[0];
        const float v = NearestInRun(codec, y, &outside), r = y - v;
        sum = sum + r * r;
        classes |= RunClass(codec, v, j);
      }
      group.overloads += outside ? 1 : 0;
      const float error = gain * gain * sum;
      if (!(group.best >= error)) continue;
      group.best = error;
      group.gain = static_cast<uint8_t>(g);
      group.classes[0] = classes;
    }
    errors[at] = group.fits ? group.best : -1;
    if (work.indices == nullptr || !group.fits) continue;
    work.gains[at] = group.gain;
    StoreRuns(group.classes[0], work.indices + at * schema::kGroup);
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

void DeviceEncoder::Encode(const EncodeWork& work, float* errors, cudaStream_t stream) const {
  if (work.count == 0 || work.groups == 0) return;
  const int64_t blocks = (work.count * work.groups + kThreads * kPer - 1) / (kThreads * kPer);
  const auto kernel = [&] {
    if (view_.dim == 1) return EncodeRuns;
    if (view_.levels == 1 && view_.level[0].shift == 2) return EncodeGroups<0x2>;
    if (view_.levels == 2 && view_.level[0].shift == 2 && view_.level[1].shift == 2) return EncodeGroups<0x22>;
    if (view_.levels == 2 && view_.level[0].shift == 1 && view_.level[1].shift == 2) return EncodeGroups<0x21>;
    return EncodeGroups<kAnyShape>;
  }();
  kernel<<<static_cast<unsigned>(std::min<int64_t>(blocks, int64_t{1} << 20)), kThreads, 0, stream>>>(view_, work, errors);
  CheckLaunch("encode");
  const int64_t per_block = kThreads / 32;
  SumErrors<<<static_cast<unsigned>((work.count + per_block - 1) / per_block), kThreads, 0, stream>>>(work, errors);
  CheckLaunch("encode");
}

}  // namespace cosetq::cuda
