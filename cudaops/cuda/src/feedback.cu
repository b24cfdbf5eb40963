// Compiled without contraction of products and sums.

#include "feedback.h"

#include <cmath>
#include <memory>
#include <string>

#include "encode_block.cuh"
#include "encode_runs.cuh"

namespace cosetq::cuda {
namespace {

constexpr int kGroupSize = schema::kGroup;
constexpr int kMetric = kGroupSize * kGroupSize;
// A batch of groups, whose feedback from later batches is summed up first, has a thread for each of its places.
constexpr int kBatchGroups = 16;
constexpr int kThreads = kBatchGroups * kGroupSize;
constexpr int kRows = 8;  // that share each read of the lower factor
// The largest magnitude, in steps, that feedback may push a weight to.
constexpr float kFarSteps = 68719476736.0f;

struct Rows {
  const float* weights;
  const float* steps;
  int64_t count;
  uint16_t* indices;
  uint8_t* gains;
  float* errors;
  double* losses;
};

// What came of one row and one gain.
struct Trial {
  float loss;
  float error[kGroupSize];
  uint32_t classes[kEncodeBlocks];
};

// Codes x with one gain: the later block first, whose error moves the earlier one.
template <int kShape>
__device__ void CodeGroup(const EncoderView& codec, const Leaders& leaders, const float* metric, const float x[kGroupSize],
                          float step, Trial* trial) {
  const float* chol = metric;
  const float* feed = metric + kMetric;
  const float inverse = step == 0 ? 0.0f : 1.0f / step;  // a step of 0 is that of a row that decodes to zeros
  float y[kGroupSize];
#pragma unroll
  for (int j = 0; j < kGroupSize; ++j) y[j] = x[j];
  float* e = trial->error;
  trial->loss = 0;
#pragma unroll
  for (int b = kEncodeBlocks - 1; b >= 0; --b) {
    float u[kEncodeDim], largest = 0;
#pragma unroll
    for (int j = 0; j < kEncodeDim; ++j) {
      u[j] = y[b * kEncodeDim + j] * inverse + codec.centre[j];
      largest = fmaxf(largest, fabsf(u[j]));
    }
    uint32_t point = 0, classes = 0;
    bool inside = false;
    if (!(largest >= codec.reach_one + 2)) {
      float unused;
      point = NearestPoint(u, &unused);
      classes = Digits<kShape>(codec, leaders, point, &inside);
    }
    if (!inside) {
      const CodedBlock clamped = Clamp<kShape>(codec, leaders, u);
      point = clamped.point;
      classes = clamped.classes;
    }
    trial->classes[b] = classes;
#pragma unroll
    for (int j = 0; j < kEncodeDim; ++j) {
      const float v = static_cast<float>(static_cast<int>(point >> (8 * j) & 0xffu) - kEncodeBias);
      e[b * kEncodeDim + j] = x[b * kEncodeDim + j] - step * (v - codec.centre[j]);
    }
    float part = 0;
#pragma unroll
    for (int j = b * kEncodeDim; j < (b + 1) * kEncodeDim; ++j) {
      float z = 0;
#pragma unroll
      for (int i = j; i < kGroupSize; ++i) z = z + e[i] * __ldg(chol + i * kGroupSize + j);
      part = part + z * z;
    }
    trial->loss = trial->loss + part;
    if (b == 0) continue;
#pragma unroll
    for (int i = kEncodeDim; i < kGroupSize; ++i) {
#pragma unroll
      for (int j = 0; j < kEncodeDim; ++j) y[j] = y[j] + e[i] * __ldg(feed + i * kGroupSize + j);
    }
  }
}

// The same of a run, whose classes are the first ones.
template <>
__device__ void CodeGroup<kRunShape>(const EncoderView& codec, const Leaders&, const float* metric, const float x[kGroupSize], float step,
                                     Trial* trial) {
  const float* chol = metric;
  const float* feed = metric + kMetric;
  const float inverse = step == 0 ? 0.0f : 1.0f / step;
  float y[kGroupSize];
#pragma unroll
  for (int j = 0; j < kGroupSize; ++j) y[j] = x[j];
  float* e = trial->error;
  trial->loss = 0;
  trial->classes[0] = trial->classes[1] = 0;
#pragma unroll
  for (int b = kGroupSize - 1; b >= 0; --b) {
    bool outside = false;
    const float v = NearestInRun(codec, y[b] * inverse + codec.centre[0], &outside);
    trial->classes[0] |= RunClass(codec, v, b);
    e[b] = x[b] - step * (v - codec.centre[0]);
    float z = 0;
#pragma unroll
    for (int i = b; i < kGroupSize; ++i) z = z + e[i] * __ldg(chol + i * kGroupSize + b);
    trial->loss = trial->loss + z * z;
#pragma unroll
    for (int j = 0; j < b; ++j) y[j] = y[j] + e[b] * __ldg(feed + b * kGroupSize + j);
  }
}

// A block takes kRows rows through all positions, last to first. Sums are in the order in which the package quant adds.
template <int kShape>
__global__ void __launch_bounds__(kThreads) CodeRows(const __grid_constant__ EncoderView codec, const float* lower,
                                                     const float* metrics, int groups, Rows rows) {
  __shared__ Leaders leaders;
  __shared__ Trial trials[kRows * schema::kMaxGains];
  __shared__ float weights[kRows][kGroupSize], moved[kRows][kGroupSize], errors[kRows][kGroupSize];
  const int levels = Levels<kShape>(codec);
  for (int m = 0; m < levels && kShape != kRunShape; ++m) {
    for (int i = threadIdx.x; i < 1 << (kEncodeDim * codec.level[m].shift); i += kThreads) leaders[m][i] = codec.level[m].leaders[i];
  }
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kRows;
  const int count = static_cast<int>(min(static_cast<int64_t>(kRows), rows.count - first_row));
  const int64_t places = static_cast<int64_t>(groups) * kGroupSize;
  float* all_errors = rows.errors + first_row * places;
  const int j = threadIdx.x;
  double loss = 0;  // of row threadIdx.x
  for (int high = groups; high > 0; high -= kBatchGroups) {
    const int low = max(0, high - kBatchGroups), width = (high - low) * kGroupSize;
    float sums[kRows] = {};
    if (lower != nullptr && j < width) {
      const float* column = lower + low * kGroupSize + j;
      for (int64_t p = static_cast<int64_t>(high) * kGroupSize; p < places; ++p) {
        const float l = __ldg(column + p * places);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          if (r < count) sums[r] = sums[r] + all_errors[r * places + p] * l;
        }
      }
    }
    for (int k = high - 1; k >= low; --k) {
      const int at = (k - low) * kGroupSize;
      if (j >= at && j < at + kGroupSize) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) moved[r][j - at] = sums[r];
      }
      if (j < count * kGroupSize)
        weights[j / kGroupSize][j % kGroupSize] = rows.weights[(first_row + j / kGroupSize) * places + k * kGroupSize + j % kGroupSize];
      __syncthreads();
      for (int i = j; i < count * codec.gain_count; i += kThreads) {
        const int r = i / codec.gain_count, g = i % codec.gain_count;
        const float step = rows.steps[first_row + r], far = kFarSteps * step;
        float x[kGroupSize];
        bool reaches = true;
#pragma unroll
        for (int t = 0; t < kGroupSize; ++t) {
          x[t] = weights[r][t] + moved[r][t];
          reaches = reaches && x[t] <= far && x[t] >= -far;
        }
        if (!reaches) {
#pragma unroll
          for (int t = 0; t < kGroupSize; ++t) x[t] = weights[r][t];
        }
        CodeGroup<kShape>(codec, leaders, metrics + static_cast<int64_t>(k) * 2 * kMetric, x, step * codec.gains[g], &trials[i]);
      }
      __syncthreads();
      if (j < count) {
        const Trial* of = trials + j * codec.gain_count;
        int gain = 0;
        for (int g = 1; g < codec.gain_count; ++g) {
          if (of[g].loss < of[gain].loss) gain = g;
        }
        const float far = kFarSteps * rows.steps[first_row + j];
        const int64_t group = (first_row + j) * groups + k;
        bool reaches = true;
#pragma unroll
        for (int t = 0; t < kGroupSize; ++t) {
          const float x = weights[j][t] + moved[j][t];
          reaches = reaches && x <= far && x >= -far;
        }
#pragma unroll
        for (int t = 0; t < kGroupSize; ++t) {
          const float x = reaches ? weights[j][t] + moved[j][t] : weights[j][t];
          errors[j][t] = weights[j][t] - (x - of[gain].error[t]);
          all_errors[j * places + k * kGroupSize + t] = errors[j][t];
        }
        if (!reaches) loss = INFINITY;
        loss += static_cast<double>(of[gain].loss);
        rows.gains[group] = static_cast<uint8_t>(gain);
        auto* out = reinterpret_cast<uint32_t*>(rows.indices) + group * levels;
        if (kShape == kRunShape) StoreRuns(of[gain].classes[0], rows.indices + group * kGroupSize);
        for (int m = 0; m < levels && kShape != kRunShape; ++m)
          out[m] = (of[gain].classes[0] >> (8 * m) & 0xff) | (of[gain].classes[1] >> (8 * m) & 0xff) << 16;
      }
      __syncthreads();
      if (lower != nullptr && j < at) {
        const float* column = lower + static_cast<int64_t>(k) * kGroupSize * places + low * kGroupSize + j;
#pragma unroll
        for (int t = 0; t < kGroupSize; ++t) {
          const float l = __ldg(column + t * places);
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            if (r < count) sums[r] = sums[r] + errors[r][t] * l;
          }
        }
      }
    }
  }
  if (j < count) rows.losses[first_row + j] = loss;
}

}  // namespace

Feedback::Feedback(const cosetq_codec& codec, const int32_t* leaders, int64_t groups, const float* lower, const float* metrics)
    : groups_(groups) {
  const std::unique_ptr<Encoder> host = Encoder::Create(codec, leaders);
  if (host == nullptr) throw Error("no encoder for this codec");
  if (groups < 1 || groups > (1 << 24)) throw Error(std::to_string(groups) + " groups in a row");
  view_ = host->view();
  for (int m = 0; m < view_.levels && view_.dim == kEncodeDim; ++m) {
    leaders_[m] = Buffer<uint32_t>(view_.level[m].leaders, size_t{1} << (kEncodeDim * view_.level[m].shift));
    view_.level[m].leaders = leaders_[m].get();
    view_.level[m].columns = nullptr;
  }
  const auto places = static_cast<size_t>(groups * kGroupSize);
  if (lower != nullptr) lower_ = Buffer<float>(lower, places * places);
  metrics_ = Buffer<float>(metrics, static_cast<size_t>(groups) * 2 * kMetric);
}

void Feedback::Run(const FeedbackWork& work) const {
  if (work.count == 0) return;
  const auto count = static_cast<size_t>(work.count), groups = static_cast<size_t>(groups_);
  const size_t slots = count * groups * static_cast<size_t>(EncodeSlots(view_)), places = count * groups * kGroupSize;
  // Memory in the order of the calling thread's stream, so that threads do not wait for each other.
  const size_t bytes = count * sizeof(double) + (2 * places + count) * sizeof(float) + slots * sizeof(uint16_t) + count * groups;
  void* memory = nullptr;
  Check(cudaMallocAsync(&memory, bytes, cudaStreamPerThread), "allocate device memory");
  const auto free = [](void* p) { cudaFreeAsync(p, cudaStreamPerThread); };
  const std::unique_ptr<void, decltype(free)> owner(memory, free);
  auto* losses = static_cast<double*>(memory);
  auto* weights = reinterpret_cast<float*>(losses + count);
  float* errors = weights + places;
  float* steps = errors + places;
  auto* indices = reinterpret_cast<uint16_t*>(steps + count);
  auto* gains = reinterpret_cast<uint8_t*>(indices + slots);
  const auto copy = [](void* to, const void* from, size_t n, cudaMemcpyKind way) {
    Check(cudaMemcpyAsync(to, from, n, way, cudaStreamPerThread), "copy rows");
  };
  copy(weights, work.rows, places * sizeof(float), cudaMemcpyHostToDevice);
  copy(steps, work.steps, count * sizeof(float), cudaMemcpyHostToDevice);
  const auto kernel = [&] {
    if (view_.dim == 1) return CodeRows<kRunShape>;
    if (view_.levels == 1 && view_.level[0].shift == 2) return CodeRows<0x2>;
    if (view_.levels == 2 && view_.level[0].shift == 2 && view_.level[1].shift == 2) return CodeRows<0x22>;
    if (view_.levels == 2 && view_.level[0].shift == 1 && view_.level[1].shift == 2) return CodeRows<0x21>;
    return CodeRows<kAnyShape>;
  }();
  kernel<<<static_cast<unsigned>((work.count + kRows - 1) / kRows), kThreads, 0, cudaStreamPerThread>>>(
      view_, lower_.get(), metrics_.get(), static_cast<int>(groups_),
      {weights, steps, work.count, indices, gains, errors, losses});
  CheckLaunch("round with feedback");
  copy(work.indices, indices, slots * sizeof(uint16_t), cudaMemcpyDeviceToHost);
  copy(work.gains, gains, count * groups, cudaMemcpyDeviceToHost);
  copy(work.errors, errors, places * sizeof(float), cudaMemcpyDeviceToHost);
  copy(work.losses, losses, count * sizeof(double), cudaMemcpyDeviceToHost);
  Check(cudaStreamSynchronize(cudaStreamPerThread), "round with feedback");
}

}  // namespace cosetq::cuda
