#include <algorithm>

#include "device.h"
#include "errors.h"
#include "lookup.cuh"
#include "vlut.h"

namespace cosetq::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kBlocks = 2;  // lattice points of a group

template <Form kForm>
__device__ __forceinline__ void LoadPanel(const PackedView& w, int64_t tile, int chunk, int lane, PanelCodes<kForm>* codes,
                                          uint32_t gains[2][2]) {
  const unsigned char* panel = TilePanels(w, static_cast<int>(tile))[chunk];
#pragma unroll
  for (int v = 0; v < PanelVectors(kForm); ++v) {
    const uint4 vector = __ldg(reinterpret_cast<const uint4*>(panel) + v * 32 + lane);
    codes->words[4 * v] = vector.x;
    codes->words[4 * v + 1] = vector.y;
    codes->words[4 * v + 2] = vector.z;
    codes->words[4 * v + 3] = vector.w;
  }
  ExpandGains(w.points.gains, __ldg(reinterpret_cast<const uint32_t*>(panel + PanelVectors(kForm) * 512) + lane), gains);
}

// The digits of a lane in a step: half 0 is row g, 1 row g + 8.
template <Form kForm>
__device__ __forceinline__ uint32_t Fine(const PanelCodes<kForm>& codes, int step, int block, int half) {
  const int place = 2 * block + half;
  if constexpr (kForm == Form::kOneByte) return codes.words[step] >> (8 * place) & 255;
  if constexpr (kForm == Form::kTwoByte) return codes.words[2 * step] >> (8 * place) & 255;
  return codes.words[8 + step / 2] >> (16 * (step % 2) + 4 * place) & 15;
}

template <Form kForm>
__device__ __forceinline__ uint32_t Coarse(const PanelCodes<kForm>& codes, int step, int block, int half) {
  const int place = 2 * block + half;
  if constexpr (kForm == Form::kTwoByte) return codes.words[2 * step + 1] >> (8 * place) & 255;
  return codes.words[step] >> (8 * place) & 255;
}

// A warp multiplies 16 rows of a with one row of b.
template <Form kForm>
__global__ void __launch_bounds__(kThreads) Pairs(PackedView a, PackedView b, float* y) {
  constexpr int kFine = FineDigits(kForm);
  constexpr int kDigits = kFine + (kForm == Form::kNibbleByte ? 256 : 0);
  extern __shared__ int16_t pairs[];   // [digit][digit]
  __shared__ float centres[kDigits];  // <centre, codeword>
  const auto word = [&](int digit) { return digit < kFine ? __ldg(a.points.fine + digit) : __ldg(a.points.coarse + digit - kFine); };
  constexpr int levels = kForm == Form::kOneByte ? 1 : 2;
  const auto coordinate = [&](int digit, int j) {
    return static_cast<int>(word(digit) >> (8 * j) & 255) - (digit < kFine ? a.points.fine_bias : a.points.bias - a.points.fine_bias);
  };
  for (int i = threadIdx.x; i < kDigits * kDigits; i += kThreads) {
    int sum = 0;
    for (int j = 0; j < 4; ++j) sum += coordinate(i / kDigits, j) * coordinate(i % kDigits, j);
    pairs[i] = static_cast<int16_t>(sum);
  }
  for (int i = threadIdx.x; i < kDigits; i += kThreads) {
    float sum = 0;
    for (int j = 0; j < 4; ++j) sum += a.points.centre[j] * static_cast<float>(coordinate(i, j));
    centres[i] = sum;
  }
  __syncthreads();
  float square = 0;
  for (int j = 0; j < kGroup; ++j) square += a.points.centre[j] * a.points.centre[j];
  const int lane = threadIdx.x % 32, t = lane % 4;
  const int64_t work = static_cast<int64_t>(a.tiles) * b.rows;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32; i < work;
       i += static_cast<int64_t>(gridDim.x) * (kThreads / 32)) {
    const int64_t tile = i / b.rows;
    const int other = static_cast<int>(i % b.rows), other_lane = other % 8 * 4 + t, other_half = other % kPanelRows / 8;
    float sums[2] = {};
    for (int chunk = 0; chunk < a.chunks; ++chunk) {
      PanelCodes<kForm> mine, theirs;
      uint32_t gains[2][2], their_gains[2][2];
      LoadPanel<kForm>(a, tile, chunk, lane, &mine, gains);
      LoadPanel<kForm>(b, other / kPanelRows, chunk, other_lane, &theirs, their_gains);
#pragma unroll
      for (int step = 0; step < kPanelSteps; ++step) {
        // Groups past the last are padding.
        if (chunk * kPanelGroups + GroupOf(kForm, step, t) >= a.groups) continue;
        const int their_gain = static_cast<int>((other_half == 0 ? their_gains[0] : their_gains[1])[step / 4] >> (step % 4 * 8) & 255);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          int dot = 0;
          float inner = 0;
#pragma unroll
          for (int block = 0; block < kBlocks; ++block) {
            uint32_t m[2], o[2];
            int weight[2] = {1, kForm == Form::kTwoByte ? kLevelRatio : 1};
            m[0] = Fine<kForm>(mine, step, block, half);
            o[0] = other_half == 0 ? Fine<kForm>(theirs, step, block, 0) : Fine<kForm>(theirs, step, block, 1);
            m[1] = o[1] = 0;
            if (levels == 2) {
              m[1] = Coarse<kForm>(mine, step, block, half);
              o[1] = other_half == 0 ? Coarse<kForm>(theirs, step, block, 0) : Coarse<kForm>(theirs, step, block, 1);
              if (kForm == Form::kNibbleByte) {
                m[1] += kFine;
                o[1] += kFine;
              }
            }
            for (int p = 0; p < levels; ++p) {
              for (int q = 0; q < levels; ++q) dot += weight[p] * weight[q] * pairs[m[p] * kDigits + o[q]];
              inner += static_cast<float>(weight[p]) * (centres[m[p]] + centres[o[p]]);
            }
          }
          const int gain = static_cast<int>(gains[half][step / 4] >> (step % 4 * 8) & 255);
          sums[half] += static_cast<float>(gain * their_gain) * (static_cast<float>(dot) - inner + square);
        }
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      sums[half] += __shfl_xor_sync(0xffffffffu, sums[half], 1);
      sums[half] += __shfl_xor_sync(0xffffffffu, sums[half], 2);
      const int64_t row = tile * kPanelRows + lane / 4 + 8 * half;
      if (t == 0 && row < a.rows) y[row * b.rows + other] = sums[half] * a.scales[row] * b.scales[other];
    }
  }
}

template <Form kForm>
void LaunchTwoSided(const PackedView& a, const PackedView& b, float* y, cudaStream_t stream) {
  constexpr int kDigits = FineDigits(kForm) + (kForm == Form::kNibbleByte ? 256 : 0);
  constexpr size_t kShared = sizeof(int16_t) * kDigits * kDigits;
  if (static_cast<int>(kShared) > CurrentDevice().shared_limit)
    throw Error("the device has too little shared memory for two-sided tables");
  AllowSharedMemory(Pairs<kForm>, static_cast<int>(kShared));
  const int64_t work = static_cast<int64_t>(a.tiles) * b.rows;
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(CurrentDevice().processors, (work + 15) / 16));
  Pairs<kForm><<<blocks, kThreads, kShared, stream>>>(a, b, y);
  CheckLaunch("look up pairs");
}

}  // namespace

void TwoSided(const PackedView& a, const PackedView& b, float* y, cudaStream_t stream) {
  // The tables are those of a.
  if (4 * a.points.largest * a.points.largest > INT16_MAX) throw Error("products of codewords with coordinates up to " + std::to_string(a.points.largest) + " do not fit two-sided tables");
  switch (a.form) {
    case Form::kOneByte:
      return LaunchTwoSided<Form::kOneByte>(a, b, y, stream);
    case Form::kTwoByte:
      return LaunchTwoSided<Form::kTwoByte>(a, b, y, stream);
    default:
      return LaunchTwoSided<Form::kNibbleByte>(a, b, y, stream);
  }
}

}  // namespace cosetq::cuda
