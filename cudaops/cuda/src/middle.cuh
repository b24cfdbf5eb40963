// The kernel of middle.h.
//
// A cluster takes a range of bands of 64 rows, each of its blocks a part of the columns, whose activations it keeps in shared memory
// as B of wgmma, in high and low bytes: a warp group multiplies a band by them, chunk after chunk, a warp a tile of 16 rows, with its
// weights as A in registers. The gains are A for what is missing of the centre, and sums begin with what the biases of bytes add too
// much (activations.cuh). Panels come through a ring in shared memory, private to a warp.
//
// Blocks send each other the sums that each of them finishes, as floats, which are added up in a fixed order. Bands are taken in passes,
// as many at a time as there is shared memory for their sums.

#ifndef COSETQ_CUDA_MIDDLE_CUH_
#define COSETQ_CUDA_MIDDLE_CUH_

#include <algorithm>
#include <array>

#include "activations.cuh"
#include "device.h"
#include "errors.h"
#include "overlap.h"
#include "panel_ring.cuh"
#include "slice_ring.cuh"

namespace cosetq::cuda {
namespace {

constexpr int kMiddleGroups = 4, kMiddleWarps = 4 * kMiddleGroups, kMiddleThreads = 32 * kMiddleWarps;
constexpr int kBandTiles = 4, kBandRows = kBandTiles * kPanelRows;
constexpr int kChunkSlices = kPanelSteps / kSliceUnits;

// Slices of so many chunks: those of all their steps, then what goes with the gains, two units of a chunk.
__host__ __device__ constexpr int MiddleSlices(int chunks) { return chunks * kChunkSlices + (chunks + 1) / 2; }

// A whole cut as evenly as may be: the first `more` parts have one more than `each`.
struct EvenCut {
  int each, more;

  __host__ __device__ int Begin(int part) const { return part * each + (part < more ? part : more); }
  __host__ __device__ int Size(int part) const { return each + (part < more); }
  __host__ __device__ int Most() const { return each + (more > 0); }
};

// How the work is cut.
struct MiddleCut {
  int splits, clusters;  // blocks of a cluster; clusters
  EvenCut chunks;        // of the blocks of a cluster
  EvenCut bands;         // of the clusters
  int together;          // bands of a pass
  int sent[3];           // bytes that a block gets in a pass: in one of so many bands, in the last one of a cluster with Most bands and with fewer

  __host__ __device__ int Segments() const { return together + kMiddleGroups - 1; }
};

// Items of a pass are its bands times a block's chunks, band after band. Each warp group has an equal share of them; what it has of a band
// is a segment. Segments are numbered by band plus group.
struct BandCuts {
  int bands, chunks;

  __host__ __device__ int Begin(int group) const { return bands * chunks * group / kMiddleGroups; }
  // Whether a group has a segment of a band.
  __host__ __device__ bool Has(int band, int group) const {
    const int begin = Begin(group), end = Begin(group + 1);
    return begin < end && begin < (band + 1) * chunks && end > band * chunks;
  }
  // The band of an item, which is far less than 2^16.
  __device__ int BandOf(int item) const { return static_cast<int>(__fdividef(static_cast<float>(item) + 0.5f, static_cast<float>(chunks))); }
};

// What a block has to do.
struct MiddleShare {
  int first_band, last_band, together, first_chunk, chunks;

  __device__ MiddleShare(const MiddleCut& cut, int cluster, int rank)
      : first_band(cut.bands.Begin(cluster)),
        last_band(first_band + cut.bands.Size(cluster)),
        together(cut.together),
        first_chunk(cut.chunks.Begin(rank)),
        chunks(cut.chunks.Size(rank)) {}
  __device__ int Together(int band) const { return min(together, last_band - band); }
  __device__ BandCuts Pass(int band) const { return {Together(band), chunks}; }
};

// The panels of a warp in the order in which it takes them.
class BandPanels {
 public:
  __device__ __forceinline__ BandPanels(const PackedView& w, const MiddleShare& share, int warp)
      : w_(w), share_(share), group_(warp / 4), tile_(warp % 4), pass_(share.first_band) {
    BeginPass();
  }

  __device__ __forceinline__ const unsigned char* Next() {
    if (left_ == 0 && !NextBand()) return nullptr;
    --left_;
    const unsigned char* panel = at_;
    at_ += stride_;
    return panel;
  }

 private:
  __device__ __forceinline__ void BeginPass() {
    const BandCuts cuts = share_.Pass(pass_);
    item_ = cuts.Begin(group_);
    end_ = cuts.Begin(group_ + 1);
  }
  __device__ __forceinline__ bool NextBand() {
    while (item_ == end_) {
      if (pass_ + share_.together >= share_.last_band) return false;
      pass_ += share_.together;
      BeginPass();
    }
    const int band = share_.Pass(pass_).BandOf(item_), chunk = item_ - band * share_.chunks;
    left_ = min(share_.chunks - chunk, end_ - item_);
    item_ += left_;
    // Warps past the last tile multiply another's weights, since all of a warp group must come along.
    const TilePanels panels(w_, min((pass_ + band) * kBandTiles + tile_, w_.tiles - 1));
    at_ = panels[share_.first_chunk + chunk];
    stride_ = static_cast<int>(panels.stride);
    return true;
  }

  const PackedView& w_;
  const MiddleShare& share_;
  int group_, tile_, pass_, item_, end_, left_ = 0, stride_ = 0;
  const unsigned char* at_ = nullptr;
};

// Panels of a warp's ring, and how many of them are fetched before the activations are there: requests for weights delay those for the
// activations, which all products wait for.
constexpr int MiddleDepth(Form form) { return form == Form::kOneByte ? 4 : 2; }
constexpr int MiddleEarly(Form form) { return MiddleDepth(form) / 2; }

// Shared memory of a block, by address from its begin.
template <Form kForm, int kRows>
struct MiddleLayout {
  static constexpr int kColumns = 2 * kRows;  // of B: high bytes, then low ones
  static constexpr int kSlice = kColumns * kSliceBytes;
  static constexpr int kSegment = kBandRows * kRows * 4;
  using Ring = PanelRing<kForm, MiddleDepth(kForm), false, BandPanels>;
  int operands, sums, rings, offsets, peaks, barriers, bytes;

  __host__ __device__ explicit MiddleLayout(const MiddleCut& cut) {
    const int chunks = cut.chunks.Most();
    operands = (TableWords(kForm) * 4 + 1023) / 1024 * 1024;  // [chunk][slice]
    sums = operands + MiddleSlices(chunks) * kSlice;          // [block that sends][segment][piece][lane], four each
    rings = sums + cut.Segments() * kSegment;
    offsets = rings + kMiddleWarps * Ring::kBytes;            // [chunk][block of a group][column]
    peaks = offsets + chunks * 2 * kColumns * 4;
    barriers = peaks + kRows * 4;
    bytes = barriers + 16;
  }
};

// Loads what nobody writes, now and not where it is needed.
__device__ __forceinline__ float LoadEarly(const float* from) {
  float x;
  asm volatile("ld.global.nc.f32 %0, [%1];" : "=f"(x) : "l"(from));
  return x;
}

// Four integers of 16 bits as bytes, in the low bits of floats that a multiple of 2^16 has been added to, and 2^15 + 2^7.
struct SignedBytes {
  uint32_t high, low;

  __device__ __forceinline__ explicit SignedBytes(const float x[4]) {
    const uint32_t first = __byte_perm(__float_as_uint(x[0]), __float_as_uint(x[1]), 0x5140);
    const uint32_t second = __byte_perm(__float_as_uint(x[2]), __float_as_uint(x[3]), 0x5140);
    low = __byte_perm(first, second, 0x5410) ^ 0x80808080u;
    high = __byte_perm(first, second, 0x7632) ^ 0x80808080u;
  }
};

// Makes B of the activations of a block's chunks, integers of 16 bits in the unit of their row and these chunks. A warp takes a block of
// the groups of a chunk for eight rows, a lane 4r + t the groups 8t up of row r: of each coordinate 16 bytes as they lie.
template <int kRows, typename Late>
__device__ __forceinline__ void MakeOperands(const PackedView& w, const __half* a, int batch, const MiddleShare& share, uint32_t operands,
                                             uint32_t offsets, uint32_t* peaks, int warp, int lane, const Late& late) {
  constexpr int kTiles = kRows / 8, kAtOnce = 2, kColumns = 2 * kRows;
  const int t = lane % 4, row = lane / 4, all = share.chunks * 2 * kTiles;
  uint4 v[kAtOnce][4];
  const auto load = [&](int first) {
#pragma unroll
    for (int i = 0; i < kAtOnce * 4; ++i) {
      const int part = first + i / 4 * kMiddleWarps, tile = part % kTiles, block = part / kTiles % 2, chunk = part / (2 * kTiles);
      const int group = (share.first_chunk + chunk) * kPanelGroups + GroupOf(0, t), n = tile * 8 + row;
      v[i / 4][i % 4] = make_uint4(0, 0, 0, 0);
      // Another kernel has written the rows a moment ago, so they are read past the first-level cache.
      if (part < all && n < batch && group < w.groups)
        v[i / 4][i % 4] = __ldcg(reinterpret_cast<const uint4*>(a + static_cast<int64_t>(n) * w.cols + group + (4 * block + i % 4) * w.groups));
    }
  };
  constexpr int kStride = kAtOnce * kMiddleWarps;
  if (warp >= all) late();
  for (int first = warp; first < all; first += kStride) {
    load(first);
    if (first == warp) late();
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      uint32_t peak = 0;
#pragma unroll
      for (int j = 0; j < 4; ++j) peak = max(peak, Magnitude(v[i][j], __half()));
      peak = max(peak, __shfl_xor_sync(0xffffffffu, peak, 1));
      peak = max(peak, __shfl_xor_sync(0xffffffffu, peak, 2));
      if (t == 0 && first + i * kMiddleWarps < all) atomicMax(peaks + (first + i * kMiddleWarps) % kTiles * 8 + row, FloatMagnitude(peak, __half()));
    }
  }
  __syncthreads();
  constexpr float kRound = (3 << 22) + (1 << 15) + (1 << 7);
  for (int first = warp; first < all; first += kStride) {
    if (all > kStride) load(first);  // or it is still there
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int part = first + i * kMiddleWarps, tile = part % kTiles, block = part / kTiles % 2, chunk = part / (2 * kTiles);
      if (part >= all) break;
      const float scale = ScaleOf(peaks[tile * 8 + row]);
      const uint32_t column = operands + (tile * 8 + row) * kSliceBytes + t * 4;
      const auto store = [&](int slice, int unit, int half, const SignedBytes& bytes) {
        const uint32_t to = column + slice * kColumns * kSliceBytes + static_cast<uint32_t>((unit * 2 + half) ^ row) * 16;
        StoreShared4(to, bytes.high);
        StoreShared4(to + kRows * kSliceBytes, bytes.low);
      };
      float rests[kPanelSteps];
      int high = 0, low = 0;
#pragma unroll
      for (int step = 0; step < kPanelSteps; ++step) {
        float x[4];
        rests[step] = 0;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const uint4& of = v[i][j];
          const __half2 pair = AsHalves(step / 2 == 0 ? of.x : step / 2 == 1 ? of.y : step / 2 == 2 ? of.z : of.w);
          x[j] = scale == 0 ? 0 : step % 2 == 0 ? __low2float(pair) : __high2float(pair);
          rests[step] = __fmaf_rn(block == 0 ? w.bytes.rest[j] : w.bytes.rest[4 + j], x[j], rests[step]);
          x[j] = __fmaf_rn(x[j], scale, kRound);
        }
        const SignedBytes bytes(x);
        store(chunk * kChunkSlices + step / kSliceUnits, step % kSliceUnits, block, bytes);
        high = DotBytes(w.bytes.base, bytes.high, high);
        low = DotBytes(w.bytes.base, bytes.low, low);
        rests[step] = __fmaf_rn(rests[step], -scale, kRound);
      }
#pragma unroll
      for (int half = 0; half < 2; ++half)
        store(share.chunks * kChunkSlices + chunk / 2, chunk % 2 * 2 + block, half, SignedBytes(rests + 4 * half));
#pragma unroll
      for (int other = 1; other < 4; other *= 2) {
        high += __shfl_xor_sync(0xffffffffu, high, other);
        low += __shfl_xor_sync(0xffffffffu, low, other);
      }
      if (t == 0) {
        const uint32_t to = offsets + ((chunk * 2 + block) * kColumns + tile * 8 + row) * 4;
        StoreShared4(to, static_cast<uint32_t>(-high));
        StoreShared4(to + kRows * 4, static_cast<uint32_t>(-low));
      }
    }
  }
}

// For batch <= kRows.
template <Form kForm, int kRows>
__global__ void __launch_bounds__(kMiddleThreads, 1)
    Middle(const __grid_constant__ PackedView w, const __half* a, int batch, __half* y, const __grid_constant__ MiddleCut cut) {
#if __CUDA_ARCH_FEAT_SM90_ALL
  using Layout = MiddleLayout<kForm, kRows>;
  using Ring = typename Layout::Ring;
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
  Ring ring(address + layout.rings + warp * Ring::kBytes, 0, BandPanels(w, share, warp), lane);
#pragma unroll
  for (int i = 0; i < MiddleEarly(kForm); ++i) ring.Fetch(i);
  // So that what the end needs comes from the second-level cache.
  const int first_row = share.first_band * kBandRows, ahead_row = first_row + static_cast<int>(threadIdx.x) * 32;
  if (ahead_row < min(share.last_band * kBandRows, w.rows)) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(w.scales + ahead_row));
    if (w.offsets != nullptr) asm volatile("prefetch.global.L2 [%0];" ::"l"(w.offsets + ahead_row));
  }
  auto* peaks = reinterpret_cast<uint32_t*>(shared + layout.peaks);
  if (threadIdx.x < kRows) peaks[threadIdx.x] = 0;
  table.Store(reinterpret_cast<uint32_t*>(shared));
  __syncthreads();

  const uint32_t lane_table = address + lane * 4;
  PanelCodes<kForm> codes;
  uint32_t gains[2][2];
  const auto take = [&] {
    uint32_t packed;
    ring.Take(codes, packed);
    ExpandGains(w.bytes.gains, packed, gains);
  };
  WaitForKernelsAhead();
  MakeOperands<kRows>(w, a, batch, share, operands, address + layout.offsets, peaks, warp, lane, [&] {
#pragma unroll
    for (int i = MiddleEarly(kForm); i < MiddleDepth(kForm); ++i) ring.Fetch(i);
  });
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
#pragma unroll 2
      for (int j = 2 * first; j < 2 * last; ++j) {
#pragma unroll
        for (int i = 0; i < kColumns / 8; ++i) {
          const int2 x = offsets[j * kColumns / 2 + i * 4];
          sums[4 * i] += x.x, sums[4 * i + 1] += x.y;
        }
      }
#pragma unroll
      for (int i = 0; i < kColumns / 8; ++i) sums[4 * i + 2] = sums[4 * i], sums[4 * i + 3] = sums[4 * i + 1];
      uint32_t panel[kPanelSteps][4] = {};
      int chunk = first;
      do {
        const auto multiply = [&](int slice, int unit, const uint32_t (&of)[4]) {
          MultiplyColumns(sums, of, Columns(operands + slice * Layout::kSlice) + unit * 2);
        };
        take();
        uint32_t gain[1][4] = {{gains[0][0], gains[1][0], gains[0][1], gains[1][1]}};  // a byte per step and lane is a column of A
        BeginProducts();
#pragma unroll
        for (int block = 0; block < 2; ++block) multiply(share.chunks * kChunkSlices + chunk / 2, chunk % 2 * 2 + block, gain[0]);
        CommitProducts();
        WaitForProducts<1>();  // the last panel's
        Keep(panel);
        ForEachStep<kForm>(codes, lane_table, gains, w.bytes.base, [&](auto step, const uint32_t u[4]) {
#pragma unroll
          for (int r = 0; r < 4; ++r) panel[step()][r] = u[r];
        });
        BeginProducts();
#pragma unroll
        for (int step = 0; step < kPanelSteps; ++step)
          multiply(chunk * kChunkSlices + step / kSliceUnits, step % kSliceUnits, panel[step]);
        CommitProducts();
        WaitForProducts<1>();  // those with the gains
        Keep(gain);
        ring.Advance();
      } while (++chunk < last);
      WaitForProducts<0>();
      Keep(panel);
      if (!may_send) Wait(empty, (pass - 1) & 1);
      may_send = true;
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        const int piece = warp % 4 * kTiles + i, owner = piece >> shift;
        const uint32_t to = sent + static_cast<uint32_t>(((rank * cut.Segments() + of + group) * pieces + (piece & (pieces - 1))) * 32 + lane) * 16;
        float merged[4];
#pragma unroll
        for (int k = 0; k < 4; ++k)
          merged[k] = __fmaf_rn(static_cast<float>(sums[4 * i + k]), 256, static_cast<float>(sums[4 * (kTiles + i) + k])) * steps[i][k % 2];
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
      uint32_t groups[2] = {0, 0};  // that have a segment, in blocks with fewer chunks and with more
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        const BandCuts other = {cuts.bands, cut.chunks.each + k};
        for (int g = 0; g < kMiddleGroups; ++g) groups[k] |= static_cast<uint32_t>(other.Has(of, g)) << g;
      }
      const int n = (band + of) * kBandRows + piece / kTiles * kPanelRows + lane / 4;
      float scales[2], biases[2];
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        scales[k] = n + 8 * k < w.rows ? LoadEarly(w.scales + n + 8 * k) : 0;
        biases[k] = n + 8 * k < w.rows && w.offsets != nullptr ? LoadEarly(w.offsets + n + 8 * k) : 0;
      }
      float4 sum = {0, 0, 0, 0};
      uint32_t from = sent + static_cast<uint32_t>((of * pieces + (i & (pieces - 1))) * 32 + lane) * 16;
      wait();
      for (int r = 0; r < cut.splits; ++r) {
        for (uint32_t left = r < cut.chunks.more ? groups[1] : groups[0]; left != 0; left &= left - 1) {
          const uint4 x = LoadShared16(from + static_cast<uint32_t>((__ffs(static_cast<int>(left)) - 1) * pieces) * 512);
          sum.x += __uint_as_float(x.x), sum.y += __uint_as_float(x.y), sum.z += __uint_as_float(x.z), sum.w += __uint_as_float(x.w);
        }
        from += static_cast<uint32_t>(cut.Segments() * pieces) * 512;
      }
      const float values[4] = {sum.x, sum.y, sum.z, sum.w};
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const int column = piece % kTiles * 8 + lane % 4 * 2 + k % 2;
        if (column < batch && n + k / 2 * 8 < w.rows)
          y[static_cast<int64_t>(column) * w.rows + n + k / 2 * 8] = __float2half_rn(values[k] * scales[k / 2] + biases[k / 2]);
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
template <Form kForm, int kRows, size_t kCount>
std::array<int, kCount> MostClusters(const std::array<int, kCount>& splits) {
  const auto kernel = Middle<kForm, kRows>;
  const Device& device = CurrentDevice();
  Check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, device.shared_limit), "reserve shared memory");
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

// A pass of so many bands: the bytes that each block gets.
inline int SentBytes(const MiddleCut& cut, int bands, int rows) {
  const auto segments = [&](int chunks) {
    const BandCuts cuts = {bands, chunks};
    int count = 0;
    for (int group = 0; group < kMiddleGroups; ++group) {
      const int begin = cuts.Begin(group), end = cuts.Begin(group + 1);
      if (begin < end) count += (end - 1) / chunks - begin / chunks + 1;
    }
    return count;
  };
  const int all = cut.chunks.more * segments(cut.chunks.each + 1) + (cut.splits - cut.chunks.more) * segments(cut.chunks.each);
  return all * kBandRows * rows * 4 / cut.splits;
}

// Cuts the work for clusters of so many blocks, of which the device has room for so many; false if that does not fit.
template <Form kForm, int kRows>
bool CutMiddle(const PackedView& w, int splits, int clusters, MiddleCut* cut) {
  if (splits > w.chunks || clusters == 0) return false;
  const int bands = (w.tiles + kBandTiles - 1) / kBandTiles;
  cut->splits = splits;
  cut->clusters = std::min(clusters, bands);
  cut->chunks = {w.chunks / splits, w.chunks % splits};
  cut->bands = {bands / cut->clusters, bands % cut->clusters};
  const int most = cut->bands.Most();
  int passes = 1;
  const auto fits = [&] {
    cut->together = (most + passes - 1) / passes;
    return MiddleLayout<kForm, kRows>(*cut).bytes <= CurrentDevice().shared_limit;
  };
  while (!fits()) {
    if (++passes > most) return false;
  }
  const auto rest = [&](int all) { return (all - 1) % cut->together + 1; };
  cut->sent[0] = SentBytes(*cut, cut->together, kRows);
  cut->sent[1] = SentBytes(*cut, rest(most), kRows);
  cut->sent[2] = cut->bands.each > 0 ? SentBytes(*cut, rest(cut->bands.each), kRows) : 0;
  return true;
}

template <Form kForm, int kRows>
void LaunchMiddle(const PackedView& w, const __half* a, int batch, __half* y, const MiddleCut& cut, cudaStream_t stream) {
  const auto kernel = Middle<kForm, kRows>;
  const int shared = MiddleLayout<kForm, kRows>(cut).bytes;
  Check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared), "reserve shared memory");
  LaunchClusters("multiply some rows", kernel, dim3(static_cast<unsigned>(cut.clusters * cut.splits)), kMiddleThreads,
                 static_cast<size_t>(shared), static_cast<unsigned>(cut.splits), true, stream, w, a, batch, y, cut);
}

}  // namespace
}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_MIDDLE_CUH_
