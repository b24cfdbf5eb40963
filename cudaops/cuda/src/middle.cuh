// The kernel of middle.h.
//
// A cluster takes a range of bands of 64 rows, each of its blocks a part of the columns, whose activations it keeps in shared memory
// as B of wgmma, in high and low bytes: a warp group multiplies a band by them, chunk after chunk, a warp a tile of 16 rows, with its
// weights as A in registers. The gains are A for what is missing of the centre, if something is, and sums begin with what the biases of bytes add too
// much (activations.cuh). Panels come to a warp in one of two ways (middle_panels.cuh).
//
// Blocks send each other the sums that each of them finishes, as floats, which are added up in a fixed order. Bands are taken in passes,
// as many at a time as there is shared memory for their sums.

#ifndef COSETQ_CUDA_MIDDLE_CUH_
#define COSETQ_CUDA_MIDDLE_CUH_

#include <array>

#include "column_bytes.cuh"
#include "device.h"
#include "errors.h"
#include "middle_cut.cuh"
#include "middle_operands.cuh"
#include "overlap.h"

namespace cosetq::cuda {
namespace {

// Loads what nobody writes, now and not where it is needed.
__device__ __forceinline__ float LoadEarly(const float* from) {
  float x;
  asm volatile("ld.global.nc.f32 %0, [%1];" : "=f"(x) : "l"(from));
  return x;
}

// For batch <= kRows. Results are float16 if activations are, or if half_y says so.
template <Form kForm, int kRows, typename T, bool kDirect>
__global__ void __launch_bounds__(kMiddleThreads, 1)
    Middle(const __grid_constant__ PackedView w, const T* a, int batch, void* y, bool half_y, const __grid_constant__ MiddleCut cut) {
#if __CUDA_ARCH_FEAT_SM90_ALL
  using Layout = MiddleLayout<kForm, kRows, kDirect>;
  constexpr int kTiles = kRows / 8, kColumns = Layout::kColumns;
  LetNextKernelBegin();
  extern __shared__ __align__(1024) unsigned char shared[];
  const Layout layout(cut);
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const uint32_t operands = address + layout.operands, sent = address + layout.sums, full = address + layout.barriers, empty = full + 8;
  const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0), lane = threadIdx.x % 32, group = warp / 4;
  const int rank = ClusterRank(), cluster = static_cast<int>(blockIdx.x) / cut.splits;
  const MiddleShare share(cut, cluster, rank);
  const int pieces = kBandTiles * kTiles / cut.splits, shift = 31 - __clz(pieces);  // of a band that this block finishes, each of a tile and eight columns
  // The barrier's next phase ends when all sums of a pass are there.
  const auto expect = [&](int band) {
    Expect(share.Together(band) == cut.together ? cut.sent[0] : cut.sent[cut.bands.more > 0 && share.last_band - share.first_band == cut.bands.each ? 2 : 1], full);
  };
  if (threadIdx.x == 0) {
    InitBarrier(full, 1);
    InitBarrier(empty, cut.splits * kMiddleWarps);
    PublishBarriers();
    expect(share.first_band);
  }
  __syncwarp();
  ArriveAtCluster();

  Table<kForm, kMiddleThreads> table(w);
  typename Layout::Panels panels(address + layout.panels + warp * Layout::Panels::kBytes, BandPanels(w, share, warp), lane);
  OperandMaker<kForm, kRows, T> maker(w, a, batch, share, warp, lane);
  // So that what the end needs comes from the second-level cache.
  const int first_row = share.first_band * kBandRows, ahead_row = first_row + static_cast<int>(threadIdx.x) * 32;
  if (ahead_row < min(share.last_band * kBandRows, w.rows)) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(w.scales + ahead_row));
    if (w.offsets != nullptr) asm volatile("prefetch.global.L2 [%0];" ::"l"(w.offsets + ahead_row));
  }
  auto* peaks = reinterpret_cast<uint32_t*>(shared + layout.peaks);
  if (threadIdx.x < kRows) peaks[threadIdx.x] = 0;
#pragma unroll 1
  for (int i = threadIdx.x; i < (share.chunks + 1) * kColumns; i += kMiddleThreads) reinterpret_cast<int*>(shared + layout.offsets)[i] = 0;
  table.Store(reinterpret_cast<uint32_t*>(shared));
  __syncthreads();

  constexpr std::integral_constant<int, 0> kFirstPart;
  const uint32_t lane_table = address + lane * 4;
  uint32_t gains[2][2];
  // With so many sums there are registers for half of a panel.
  constexpr int kParts = kRows == 64 ? 2 : 1, kPartSteps = kPanelSteps / kParts;
  uint32_t panel[kPartSteps][4] = {};
  const auto decode = [&](auto part) {
    ForEachIndex<kPartSteps>([&](auto index) {
      constexpr int kIndex = decltype(index)::value, kStep = decltype(part)::value * kPartSteps + kIndex;
      if constexpr (IsColumns(kForm)) {
        DecodeColumns<kForm, kStep>(panels.Codes(), gains, w.bytes, panel[kIndex]);
      } else {
        DecodeStep<kForm, kStep>(panels.Codes(), lane_table, gains, w.bytes, panel[kIndex]);
      }
      panels.template Decoded<kStep>();
    });
  };
  // Of the fewest rows the first panel is decoded while activations come, if every warp has one; more leave no time for that.
  const BandCuts first_pass = share.Pass(share.first_band);
  bool decoded = kRows == 16 && first_pass.bands * first_pass.chunks >= kMiddleGroups;
  WaitForKernelsAhead();
  maker.Peaks(peaks, [&] {
    panels.FetchRest();
    if (decoded) {
      panels.Take(w.bytes, gains);
      decode(kFirstPart);
    }
  });
  __syncthreads();
  maker.Make(operands, address + layout.offsets, peaks);
  FenceCopyEngine();
  __syncthreads();
  WaitForClusterArrivals();

  const auto* offsets = reinterpret_cast<const int2*>(shared + layout.offsets) + lane % 4;
  float steps[kTiles][2];  // of the rows whose sums a lane has
#pragma unroll
  for (int i = 0; i < kTiles * 2; ++i) steps[i / 2][i % 2] = StepOf(peaks[i / 2 * 8 + lane % 4 * 2 + i % 2]);
  for (int band = share.first_band, pass = 0; band < share.last_band; band += share.together, ++pass) {
    const BandCuts cuts = share.Pass(band);
    const int end = cuts.Begin(group + 1);
    int item = cuts.Begin(group), of = cuts.BandOf(item), first = item - of * share.chunks;
    bool may_send = pass == 0;
    while (item < end) {
      const int last = min(share.chunks, first + end - item);
      int sums[kColumns / 2] = {};
      int chunk = first;
      const auto multiply = [&](int slice, int unit, const uint32_t (&of)[4]) {
        MultiplyColumns(sums, of, Columns(operands + slice * Layout::kSlice) + unit * 2);
      };
      const auto multiply_part = [&](int part) {
        BeginProducts();
#pragma unroll
        for (int i = 0; i < kPartSteps; ++i) {
          const int step = part * kPartSteps + i;
          multiply(chunk * kChunkSlices + step / kSliceUnits, step % kSliceUnits, panel[i]);
        }
        CommitProducts();
      };
      if constexpr (IsColumns(kForm)) {
        if (!decoded) {
          panels.Take(w.bytes, gains);
          decode(kFirstPart);
        }
        decoded = false;
        // Products are waited for where they began: if the next ones were to wait for them, the assembler would have all wait for each other.
        while (true) {
          multiply_part(0);
          panels.Advance();
          const bool more = ++chunk < last;
          if (more) panels.Take(w.bytes, gains);
          WaitForProducts<0>();
          Keep(panel);
          if (!more) break;
          decode(kFirstPart);
        }
      } else {
        do {
          if (!decoded) panels.Take(w.bytes, gains);
          uint32_t gain[1][4] = {{gains[0][0], gains[1][0], gains[0][1], gains[1][1]}};  // a byte per step and lane is a column of A
          BeginProducts();
#pragma unroll
          for (int block = 0; block < 2; ++block) multiply(share.chunks * kChunkSlices + chunk / 2, chunk % 2 * 2 + block, gain[0]);
          CommitProducts();
          WaitForProducts<1>();  // the last panel's
          Keep(panel);
          if (!decoded) decode(kFirstPart);
          decoded = false;
          multiply_part(0);
          if constexpr (kParts == 2) {
            WaitForProducts<0>();
            Keep(panel);
            decode(std::integral_constant<int, 1>());
            multiply_part(1);
          }
          WaitForProducts<1>();  // those with the gains
          Keep(gain);
          panels.Advance();
        } while (++chunk < last);
        WaitForProducts<0>();
        Keep(panel);
      }
      Keep(sums);
      if (!may_send) Wait(empty, (pass - 1) & 1);
      may_send = true;
      // What biases make of these chunks, minus.
      const auto offset = [&](int i) {
        const int2 to = offsets[last * kColumns / 2 + i * 4], from = offsets[first * kColumns / 2 + i * 4];
        return make_int2(to.x - from.x, to.y - from.y);
      };
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        const int2 high = offset(i), low = offset(kTiles + i);
        const int piece = warp % 4 * kTiles + i, owner = piece >> shift;
        const uint32_t to = sent + static_cast<uint32_t>(((rank * cut.Segments() + of + group) * pieces + (piece & (pieces - 1))) * 32 + lane) * 16;
        float merged[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const int of_high = sums[4 * i + k] + (k % 2 == 0 ? high.x : high.y), of_low = sums[4 * (kTiles + i) + k] + (k % 2 == 0 ? low.x : low.y);
          merged[k] = __fmaf_rn(static_cast<float>(of_high), 256, static_cast<float>(of_low)) * steps[i][k % 2];
        }
        SendAsync(InBlock(to, owner), merged, InBlock(full, owner));
      }
      ++of;
      item += last - first;
      first = 0;
    }

    const bool more = band + share.together < share.last_band;
    bool there = false;
    const auto wait = [&] {
      if (!there) Wait(full, pass & 1);
      there = true;
    };
    for (int i = warp; i < cuts.bands * pieces; i += kMiddleWarps) {
      const int of = i >> shift, piece = rank * pieces + (i & (pieces - 1));
      // Groups that have a segment, in blocks with fewer chunks and with more.
      const uint32_t groups[2] = {BandCuts{cuts.bands, cut.chunks.each}.GroupsOf(of),
                                  cut.chunks.more > 0 ? BandCuts{cuts.bands, cut.chunks.each + 1}.GroupsOf(of) : 0};
      const int n = (band + of) * kBandRows + piece / kTiles * kPanelRows + lane / 4;
      float scales[2], biases[2];
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        scales[k] = n + 8 * k < w.rows ? LoadEarly(w.scales + n + 8 * k) * StepUnit(kForm, k) : 0;
        biases[k] = n + 8 * k < w.rows && w.offsets != nullptr ? LoadEarly(w.offsets + n + 8 * k) : 0;
      }
      float4 sum = {0, 0, 0, 0};
      const uint32_t from = sent + static_cast<uint32_t>((of * pieces + (i & (pieces - 1))) * 32 + lane) * 16;
      wait();
      const auto add = [&](int r, uint32_t group) {  // the lowest of a block's groups
        const uint4 x = LoadShared16(from + static_cast<uint32_t>((r * cut.Segments() + __ffs(static_cast<int>(group)) - 1) * pieces) * 512);
        sum.x += __uint_as_float(x.x), sum.y += __uint_as_float(x.y), sum.z += __uint_as_float(x.z), sum.w += __uint_as_float(x.w);
      };
      const auto groups_of = [&](int r) { return r < cut.chunks.more ? groups[1] : groups[0]; };
      // Every block has one, which are loaded at the same time.
#pragma unroll 4
      for (int r = 0; r < cut.splits; ++r) add(r, groups_of(r));
      for (int r = 0; r < cut.splits; ++r) {
        for (uint32_t left = groups_of(r); (left &= left - 1) != 0;) add(r, left);
      }
      const float values[4] = {sum.x, sum.y, sum.z, sum.w};
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const int column = piece % kTiles * 8 + lane % 4 * 2 + k % 2;
        if (column >= batch || n + k / 2 * 8 >= w.rows) continue;
        const int64_t at = static_cast<int64_t>(column) * w.rows + n + k / 2 * 8;
        const float value = values[k] * scales[k / 2] + biases[k / 2];
        if (sizeof(T) == 2 || half_y) {
          static_cast<__half*>(y)[at] = __float2half_rn(value);
        } else {
          static_cast<float*>(y)[at] = value;
        }
      }
    }
    wait();
    if (more && threadIdx.x == 0) expect(band + share.together);
    __syncwarp();
    if (more && lane < cut.splits) ArriveInCluster(InBlock(empty, lane));
  }
#endif
}

// Clusters that the device has room for, of so many blocks each.
template <Form kForm, int kRows, typename T, bool kDirect, size_t kCount>
std::array<int, kCount> MostClusters(const std::array<int, kCount>& splits) {
  const auto kernel = Middle<kForm, kRows, T, kDirect>;
  const Device& device = CurrentDevice();
  ReserveSharedMemory(kernel);
  std::array<int, kCount> most;
  for (size_t i = 0; i < kCount; ++i) {
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = static_cast<unsigned>(splits[i]);
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(static_cast<unsigned>(device.processors / splits[i] * splits[i]));
    config.blockDim = dim3(kMiddleThreads);
    config.dynamicSmemBytes = static_cast<size_t>(device.shared_limit);
    config.attrs = &attribute;
    config.numAttrs = 1;
    Check(cudaOccupancyMaxActiveClusters(&most[i], kernel, &config), "ask for clusters");
  }
  return most;
}

template <Form kForm, int kRows, typename T, bool kDirect>
void LaunchMiddle(const PackedView& w, const void* a, int batch, void* y, bool half_y, const MiddleCut& cut, cudaStream_t stream) {
  const auto kernel = Middle<kForm, kRows, T, kDirect>;
  const int shared = MiddleLayout<kForm, kRows, kDirect>(cut).bytes;
  ReserveSharedMemory(kernel);
  LaunchClusters("multiply some rows", kernel, dim3(static_cast<unsigned>(cut.clusters * cut.splits)), kMiddleThreads,
                 static_cast<size_t>(shared), static_cast<unsigned>(cut.splits), true, stream, w,
                 static_cast<const T*>(a), batch, y, half_y, cut);
}

}  // namespace
}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_MIDDLE_CUH_
