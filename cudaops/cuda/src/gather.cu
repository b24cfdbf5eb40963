#include "gather.h"

#include <cuda_fp16.h>

#include <algorithm>

#include "errors.h"
#include "general.cuh"
#include "column_halves.cuh"

namespace cosetq::cuda {
namespace {

constexpr int kThreads = 256;

// Where lane 4g + t of a panel has the digits of a group: views.h.
struct BlockRows {
  PackedView w;

  __device__ void Decode(int64_t row, int64_t group, float x[kGroup]) const {
    const int chunk = static_cast<int>(group / kPanelGroups), half = static_cast<int>(row) / 8 % 2;
    const GroupPlace place_of_group(w.form, static_cast<int>(group % kPanelGroups));
    const int step = place_of_group.step, lane = static_cast<int>(row) % 8 * 4 + place_of_group.t;
    const unsigned char* panel = TilePanels(w, static_cast<int>(row / kPanelRows))[chunk];
    const auto word = [&](int i) { return __ldg(reinterpret_cast<const uint32_t*>(panel) + (i / 4 * 32 + lane) * 4 + i % 4); };
    const uint32_t gains = __ldg(reinterpret_cast<const uint32_t*>(panel + PanelVectors(w.form) * 512) + lane);
    const uint32_t gain = w.bytes.gains >> ((gains >> (4 * step + 2 * half) & 3) * 8) & 255;
#pragma unroll
    for (int block = 0; block < 2; ++block) {
      const int place = 8 * (2 * block + half);
      uint32_t sum;
      if (w.form == Form::kOneByte) {
        sum = __ldg(w.bytes.fine + (word(step) >> place & 255));
      } else if (w.form == Form::kTwoByte) {
        sum = __ldg(w.bytes.fine + (word(2 * step) >> place & 255)) +
              __ldg(w.bytes.fine + (word(2 * step + 1) >> place & 255)) * kLevelRatio;
      } else {
        sum = __ldg(w.bytes.coarse + (word(step) >> place & 255)) +
              __ldg(w.bytes.fine + (word(8 + step / 2) >> (16 * (step % 2) + place / 2) & 15));
      }
      const uint32_t bytes = sum * gain + w.bytes.base;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int point = static_cast<int>(bytes >> (8 * j) & 255) - static_cast<int>(w.bytes.base >> (8 * j) & 255);
        x[4 * block + j] = static_cast<float>(point) - static_cast<float>(gain) * w.bytes.rest[4 * block + j];
      }
    }
  }
};

// The same of single columns: column_halves.cuh.
struct ColumnRows {
  PackedView w;

  __device__ void Decode(int64_t row, int64_t group, float x[kGroup]) const {
    const int chunk = static_cast<int>(group / kPanelGroups), half = static_cast<int>(row) / 8 % 2, mask = (1 << ColumnBits(w.form)) - 1;
    const GroupPlace place(w.form, static_cast<int>(group % kPanelGroups));
    const int lane = static_cast<int>(row) % 8 * 4 + place.t;
    const unsigned char* panel = TilePanels(w, static_cast<int>(row / kPanelRows))[chunk];
    const uint32_t gains = __ldg(reinterpret_cast<const uint32_t*>(panel + PanelVectors(w.form) * 512) + lane);
    const float gain = static_cast<float>(w.points.gains >> ((gains >> (4 * place.step + 2 * half) & 3) * 8) & 255);
#pragma unroll
    for (int j = 0; j < kGroup; ++j) {
      const int at = ColumnWord(w.form, j, place.step / 2);  // of the lane's words
      const uint32_t word = __ldg(reinterpret_cast<const uint32_t*>(panel) + (at / 4 * 32 + lane) * 4 + at % 4);
      x[j] = 2 * gain * (static_cast<float>(word >> DigitBit(w.form, j, place.step, half) & mask) - w.points.centre[j]);
    }
  }
};

struct GeneralRows {
  GeneralView w;

  __device__ void Decode(int64_t row, int64_t group, float x[kGroup]) const { DecodeGroup(w, row, group, x); }
};

// A thread per group of a row.
template <typename Rows, typename T>
__global__ void __launch_bounds__(kThreads) GatherRows(const __grid_constant__ Rows rows, Indices indices, T* out) {
  const auto& w = rows.w;
  const int64_t group = static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x;
  if (group >= w.groups) return;
  for (int64_t i = blockIdx.x; i < indices.count; i += gridDim.x) {
    int64_t row = indices.wide ? static_cast<const int64_t*>(indices.data)[i] : static_cast<const int32_t*>(indices.data)[i];
    if (row < 0) row += w.rows;
    const bool there = row >= 0 && row < w.rows;
    float x[kGroup] = {};
    if (there) rows.Decode(row, group, x);
    const float scale = there ? w.scales[row] : 0;
#pragma unroll
    for (int j = 0; j < kGroup; ++j) {
      const int64_t column = group + static_cast<int64_t>(w.groups) * j;
      if (column >= w.cols) continue;
      if constexpr (sizeof(T) == 2) {
        out[i * w.cols + column] = __float2half_rn(scale * x[j]);
      } else {
        out[i * w.cols + column] = scale * x[j];
      }
    }
  }
}

template <typename Rows>
void Launch(const Rows& rows, const Indices& indices, void* out, bool half, cudaStream_t stream) {
  constexpr int64_t kMost = 1 << 20;  // blocks along the indices
  const dim3 grid(static_cast<unsigned>(std::min(indices.count, kMost)),
                  static_cast<unsigned>((rows.w.groups + kThreads - 1) / kThreads));
  if (half) {
    GatherRows<<<grid, kThreads, 0, stream>>>(rows, indices, static_cast<__half*>(out));
  } else {
    GatherRows<<<grid, kThreads, 0, stream>>>(rows, indices, static_cast<float*>(out));
  }
  CheckLaunch("take rows of a weight");
}

}  // namespace

void Gather(const PackedView& w, const Indices& indices, void* out, bool half, cudaStream_t stream) {
  IsColumns(w.form) ? Launch(ColumnRows{w}, indices, out, half, stream) : Launch(BlockRows{w}, indices, out, half, stream);
}

void Gather(const GeneralView& w, const Indices& indices, void* out, bool half, cudaStream_t stream) {
  Launch(GeneralRows{w}, indices, out, half, stream);
}

}  // namespace cosetq::cuda
