#include "decode.h"

#include <cuda_fp16.h>

#include "errors.h"
#include "general.cuh"
#include "lookup.cuh"

namespace cosetq::cuda {
namespace {

__device__ void Store(float* to, float value) { *to = value; }
__device__ void Store(__half* to, float value) { *to = __float2half_rn(value); }

constexpr int kThreads = 256;

template <typename T>
__global__ void DecodeGeneral(GeneralView w, T* out) {
  const int64_t group = static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x, row = blockIdx.x;
  if (group >= w.groups) return;
  float x[kGroup];
  DecodeGroup(w, row, group, x);
#pragma unroll
  for (int j = 0; j < kGroup; ++j) {
    const int64_t column = group + w.groups * j;
    if (column < w.cols) Store(out + row * w.cols + column, w.scales[row] * x[j]);
  }
}

// A block decodes the panels of one tile of rows and one chunk of groups after the other, a warp each.
template <Form kForm, typename T>
__global__ void __launch_bounds__(kThreads) DecodePacked(PackedView w, T* out) {
  extern __shared__ __align__(128) uint32_t table[];
  FillTable(w, table, threadIdx.x, kThreads);
  __syncthreads();
  const int lane = threadIdx.x % 32, warps = gridDim.x * (kThreads / 32);
  const uint32_t lane_table = static_cast<uint32_t>(__cvta_generic_to_shared(table)) + lane * 4;
  const int64_t panels = static_cast<int64_t>(w.tiles) * w.chunks;
  for (int64_t i = blockIdx.x * (kThreads / 32) + threadIdx.x / 32; i < panels; i += warps) {
    const int tile = static_cast<int>(i / w.chunks), chunk = static_cast<int>(i % w.chunks);
    const unsigned char* panel = w.panels + i * PanelBytes(kForm);
    PanelCodes<kForm> codes;
#pragma unroll
    for (int v = 0; v < PanelVectors(kForm); ++v) {
      const uint4 vector = __ldg(reinterpret_cast<const uint4*>(panel) + v * 32 + lane);
      codes.words[4 * v] = vector.x;
      codes.words[4 * v + 1] = vector.y;
      codes.words[4 * v + 2] = vector.z;
      codes.words[4 * v + 3] = vector.w;
    }
    uint32_t gains[2][2];
    ExpandGains(w.gains, __ldg(reinterpret_cast<const uint32_t*>(panel + PanelVectors(kForm) * 512) + lane), gains);
    const int row = tile * kPanelRows + lane / 4;
    const float scales[2] = {w.scales[row], w.scales[row + 8]};
    const auto store = [&](int step, const uint32_t a[4]) {
      const int group = chunk * kPanelGroups + step * kStepGroups + lane % 4;
      if (group >= w.groups) return;
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const int half = r % 2, block = r / 2, n = row + 8 * half;
        if (n >= w.rows) continue;
        const float gain = static_cast<float>(gains[half][step / 4] >> (step % 4 * 8) & 255);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int64_t column = group + static_cast<int64_t>(w.groups) * (4 * block + j);
          if (column >= w.cols) continue;
          const float point = static_cast<float>(a[r] >> (8 * j) & 255) - gain * static_cast<float>(w.bias);
          Store(out + static_cast<int64_t>(n) * w.cols + column,
                scales[half] * (point - gain * w.centre[4 * block + j]));
        }
      }
    };
    uint32_t a[4];
#define COSETQ_STEP(step)                                            \
  DecodeStep<kForm, step>(codes, lane_table, w.shift, gains, a); \
  store(step, a);
    COSETQ_STEP(0)
    COSETQ_STEP(1)
    COSETQ_STEP(2)
    COSETQ_STEP(3)
    COSETQ_STEP(4)
    COSETQ_STEP(5)
    COSETQ_STEP(6)
    COSETQ_STEP(7)
#undef COSETQ_STEP
  }
}

template <typename T>
void LaunchPacked(const PackedView& w, T* out, cudaStream_t stream) {
  const auto launch = [&](auto kernel) {
    const int64_t panels = static_cast<int64_t>(w.tiles) * w.chunks;
    const auto blocks = static_cast<unsigned>(std::min<int64_t>((panels + 7) / 8, 1 << 12));
    kernel<<<blocks, kThreads, TableWords(w.form) * 4, stream>>>(w, out);
    CheckLaunch("decode weights");
  };
  switch (w.form) {
    case Form::kOneByte:
      return launch(DecodePacked<Form::kOneByte, T>);
    case Form::kTwoByte:
      return launch(DecodePacked<Form::kTwoByte, T>);
    default:
      return launch(DecodePacked<Form::kNibbleByte, T>);
  }
}

template <typename T>
void LaunchGeneral(const GeneralView& w, T* out, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(w.rows), static_cast<unsigned>((w.groups + kThreads - 1) / kThreads));
  DecodeGeneral<<<grid, kThreads, 0, stream>>>(w, out);
  CheckLaunch("decode weights");
}

}  // namespace

void Decode(const PackedView& w, void* out, bool half, cudaStream_t stream) {
  half ? LaunchPacked(w, static_cast<__half*>(out), stream) : LaunchPacked(w, static_cast<float*>(out), stream);
}

void Decode(const GeneralView& w, void* out, bool half, cudaStream_t stream) {
  half ? LaunchGeneral(w, static_cast<__half*>(out), stream) : LaunchGeneral(w, static_cast<float*>(out), stream);
}

}  // namespace cosetq::cuda
