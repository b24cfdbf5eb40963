// The kernel of nibbles_few.h, Hopper's.
//
// A block takes a share of the row tiles, whose panels lie next to each other. In a round the copy engine brings a panel for each of the
// warps that multiply, the next one for the next warp; a warp thus has a part of each tile, and a warp of its own adds these up, in the
// order of the columns, as soon as they are there, and stores the results. Activations are in shared memory as they come, once for all
// warps: those of all columns, or where these do not fit, of one band of columns after the other.
//
// Rounds are on their way before the activations are, but not many: activations would wait for them.

#ifndef COSETQ_CUDA_NIBBLES_FEW_CUH_
#define COSETQ_CUDA_NIBBLES_FEW_CUH_

#include <algorithm>

#include "half_operands.cuh"
#include "nibbles.cuh"
#include "nibbles_few.h"
#include "overlap.h"
#include "pipeline.cuh"
#include "shared.cuh"

namespace cosetq::cuda {
namespace {

constexpr int kFewWarps = 8, kFewThreads = (kFewWarps + 2) * 32, kRoundBytes = kFewWarps * kNibblePanel;
constexpr int kLineBytes = kPanelGroups * 2;  // of a row's coordinate in a chunk
constexpr int kPieces = kLineBytes / 16;

// How a block goes about it, and where things lie in its shared memory, in bytes from its begin.
struct FewCut {
  int band;    // chunks that activations are there of together: all, or a multiple of the warps
  int depth;   // rounds that there is room for
  int early;   // of them that are asked for before one has come
  int pitch;   // lines of a chunk's coordinate: a power of two
  int rounds, activations, partials, sums;
  int bytes;
};

// Panels of a band, chunk after chunk of a tile: of whole rounds, where there are several bands, some of which may not be there.
template <bool kBands>
struct FewBand {
  int first, chunks, items, rounds;

  __device__ __forceinline__ FewBand(const PackedView& w, const FewCut& cut, int tiles, int number)
      : first(kBands ? number * cut.band : 0), chunks(w.chunks) {
    if (kBands) chunks = (min(cut.band, w.chunks - first) + kFewWarps - 1) / kFewWarps * kFewWarps;
    items = tiles * chunks;
    rounds = (items + kFewWarps - 1) / kFewWarps;
  }
};

// Barriers of a block.
struct FewBarriers {
  static constexpr int kMostRounds = 6, kStages = 2, kBytes = 128;
  uint32_t full, empty;              // [round]
  uint32_t parts_full, parts_empty;  // [stage], of lanes

  __device__ __forceinline__ explicit FewBarriers(uint32_t memory)
      : full(memory), empty(full + kMostRounds * 8), parts_full(empty + kMostRounds * 8), parts_empty(parts_full + kStages * 8) {}

  __device__ __forceinline__ void Create(const FewCut& cut) const {
    for (int i = 0; i < cut.depth; ++i) InitBarrier(full + i * 8, 1), InitBarrier(empty + i * 8, kFewWarps);
    for (int i = 0; i < kStages; ++i) InitBarrier(parts_full + i * 8, kFewWarps * 32), InitBarrier(parts_empty + i * 8, 32);
    PublishBarriers();
  }
};
static_assert((2 * FewBarriers::kMostRounds + 2 * FewBarriers::kStages) * 8 <= FewBarriers::kBytes);

// A place in a ring, and whose turn it is there.
struct FewTurn {
  int slot = 0, phase = 0;

  __device__ __forceinline__ void Advance(int depth) {
    if (++slot == depth) slot = 0, phase ^= 1;
  }
};

// One thread asks for the rounds of all bands, in order.
template <bool kBands>
__device__ __forceinline__ void FetchRounds(const PackedView& w, const FewCut& cut, const Share& share, int bands, const FewBarriers& barriers,
                                            uint32_t rounds) {
  FewTurn next, come;
  int asked = 0;
  for (int number = 0; number < bands; ++number) {
    const FewBand<kBands> band(w, cut, share.count, number);
    for (int round = 0; round < band.rounds; ++round, ++asked) {
      if (asked >= cut.early) {
        Wait(barriers.full + come.slot * 8, come.phase);
        come.Advance(cut.depth);
      }
      Wait(barriers.empty + next.slot * 8, next.phase ^ 1);  // at once the first time round
      const int item = round * kFewWarps, chunk = band.first + item % band.chunks;
      int panels = min(kFewWarps, band.items - item);
      if (kBands) panels = min(panels, w.chunks - chunk);
      const int64_t panel = static_cast<int64_t>(share.first + item / band.chunks) * w.chunks + chunk;
      Expect(panels * kNibblePanel, barriers.full + next.slot * 8);
      Fetch(rounds + next.slot * kRoundBytes, w.panels + panel * kNibblePanel, panels * kNibblePanel, barriers.full + next.slot * 8);
      next.Advance(cut.depth);
    }
  }
}

// A warp adds up what the others have of a tile, and stores the results. Where there are several bands, sums of those before are in
// shared memory.
template <int kTiles, bool kBands>
__device__ __forceinline__ void AddParts(const PackedView& w, const NibbleRows& rows, const FewCut& cut, const Share& share, int bands,
                                         const FewBarriers& barriers, uint32_t memory, int parts, void* y, bool half_y, int lane) {
  const int g = lane / 4, t = lane % 4, results = rows.rows / parts;
  FewTurn stage;
  for (int number = 0; number < bands; ++number) {
    const FewBand<kBands> band(w, cut, share.count, number);
    const int warps = min(kFewWarps, band.chunks);
    for (int tile = 0; tile < share.count; ++tile) {
      const int n = (share.first + tile) * kPanelRows + g;
      const float scales[2] = {w.scales[n] / kNibbleUnit, w.scales[n + 8] / kNibbleUnit};
      float offsets[2] = {};
      if (w.offsets != nullptr && n < w.rows) offsets[0] = w.offsets[n];
      if (w.offsets != nullptr && n + 8 < w.rows) offsets[1] = w.offsets[n + 8];
      const uint32_t sums = memory + cut.sums + (tile * kTiles * 32 + lane) * 16;
      float sum[kTiles][4] = {};
      const auto add = [&](uint32_t from) {
#pragma unroll
        for (int i = 0; i < kTiles; ++i) {
          const uint4 v = LoadShared16(from + i * 512);
          sum[i][0] += __uint_as_float(v.x), sum[i][1] += __uint_as_float(v.y), sum[i][2] += __uint_as_float(v.z), sum[i][3] += __uint_as_float(v.w);
        }
      };
      Wait(barriers.parts_full + stage.slot * 8, stage.phase);
      if (kBands && number > 0) add(sums);
      int warp = tile * band.chunks % kFewWarps;
      for (int i = 0; i < warps; ++i) {
        add(memory + cut.partials + ((stage.slot * kFewWarps + warp) * kTiles * 32 + lane) * 16);
        if (++warp == kFewWarps) warp = 0;
      }
      Arrive(barriers.parts_empty + stage.slot * 8);
      stage.Advance(FewBarriers::kStages);
      if (kBands && number + 1 < bands) {
#pragma unroll
        for (int i = 0; i < kTiles; ++i) StoreShared16(sums + i * 512, sum[i]);
        continue;
      }
      if (kTiles == 2 && parts == 2) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[0][i] += sum[kTiles - 1][i] * (1 / kRestScale);
      }
#pragma unroll
      for (int i = 0; i < kTiles * 4; ++i) {
        const int row = i / 4 * 8 + 2 * t + i % 2, half = i / 2 % 2, out = n + 8 * half;
        if (row >= results || out >= w.rows) continue;
        const float value = sum[i / 4][i % 4] * (rows.steps == nullptr ? 1 : rows.steps[row]) * scales[half] + offsets[half];
        const int64_t place = static_cast<int64_t>(row) * w.rows + out;
        if (half_y) {
          static_cast<__half*>(y)[place] = __float2half_rn(value);
        } else {
          static_cast<float*>(y)[place] = value;
        }
      }
    }
  }
}

// Where a piece of a line is among the lines of a chunk's coordinate: pieces are turned so that those of eight rows are in different banks.
__device__ __forceinline__ uint32_t PiecePlace(int row, int piece) {
  return static_cast<uint32_t>(row * kLineBytes + ((piece ^ (row >> 1 & 3)) << 4));
}

__device__ __forceinline__ void LoadMatrices(uint32_t from, uint32_t (&b)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3]) : "r"(from));
}

template <int kTiles, bool kBands>
__global__ void __launch_bounds__(kFewThreads, kTiles == 1 ? 2 : 1)
    FewNibbles(const __grid_constant__ PackedView w, const __grid_constant__ NibbleRows rows, const __grid_constant__ FewCut cut, int parts, void* y,
               bool half_y) {
  LetNextKernelBegin();
  extern __shared__ __align__(128) unsigned char shared[];
  const uint32_t memory = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
  const Share share(w, blockIdx.x);
  const int bands = kBands ? (w.chunks + cut.band - 1) / cut.band : 1;
  const FewBarriers barriers(memory);
  if (warp == kFewWarps) {
    if (lane == 0) barriers.Create(cut);
    __syncwarp();
    asm volatile("bar.arrive 2, %0;" ::"n"(kFewThreads) : "memory");  // nobody to wait for
    if (lane == 0) FetchRounds<kBands>(w, cut, share, bands, barriers, memory + cut.rounds);
    return;
  }
  asm volatile("bar.sync 2, %0;" ::"n"(kFewThreads) : "memory");
  if (warp > kFewWarps) {
    WaitForKernelsAhead();
    AddParts<kTiles, kBands>(w, rows, cut, share, bands, barriers, memory, parts, y, half_y, lane);
    return;
  }
  const NibbleGains::Table table(w);
  const auto meet = [] { asm volatile("bar.sync 1, %0;" ::"n"(kFewWarps * 32) : "memory"); };
  const uint32_t lines = static_cast<uint32_t>(cut.pitch * kLineBytes);
  // Lanes whose row there is not take another one: what is made of it nobody wants.
  const uint32_t own = memory + cut.activations + PiecePlace(lane % 8 & (cut.pitch - 1), lane / 8);
  const uint32_t partials = memory + cut.partials + (warp * kTiles * 32 + lane) * 16;
  FewTurn turn, stage;
  int tiles_past = 0;
  // Warps tell of every tile in order, also of those that they have no part of: a warp that left some out could not know which turn of a
  // stage it finds.
  const auto tell = [&](const auto& store) {
    Wait(barriers.parts_empty + stage.slot * 8, stage.phase ^ 1);
    store();
    Arrive(barriers.parts_full + stage.slot * 8);
    stage.Advance(FewBarriers::kStages);
    ++tiles_past;
  };
  const auto pass_to = [&](int tiles) {
    while (tiles_past < tiles) tell([] {});
  };
  WaitForKernelsAhead();
  for (int number = 0; number < bands; ++number) {
    const FewBand<kBands> band(w, cut, share.count, number);
    int tile = warp / band.chunks, chunk = warp % band.chunks;
    if (number > 0) meet();  // nobody needs what is there
    // A warp takes a coordinate of a row, lanes the groups. Another kernel has written them a moment ago: past the first-level cache.
    for (int i = warp; i < rows.rows * kGroup; i += kFewWarps) {
      const int row = i / kGroup, j = i % kGroup, results = rows.rows / parts;
      const __half* from = rows.data + row * rows.row_stride + j * rows.coordinate_stride;
      const uint32_t to = memory + cut.activations + j * lines;
      const int line = row < results ? row : 8 + row - results;  // rests are a tile of their own
      for (int p = lane; p < band.chunks * kPieces; p += 32) {
        const int group = band.first * kPanelGroups + p * 8, there = max(min(rows.groups - group, 8), 0);
        CopyAsync16(to + p / kPieces * kGroup * lines + PiecePlace(line, p % kPieces), there > 0 ? from + group : from, there * 2);
      }
    }
    CommitCopies();
    WaitForCopies<0>();
    meet();

    float sum[kTiles][2][4] = {};
    for (int item = warp; item < band.rounds * kFewWarps; item += kFewWarps) {
      Wait(barriers.full + turn.slot * 8, turn.phase);
      if (item < band.items && (!kBands || band.first + chunk < w.chunks)) {
        const uint32_t codes = memory + cut.rounds + turn.slot * kRoundBytes + warp * kNibblePanel;
        NibbleGains gains;
        gains.Expand(table, LoadShared4(codes + PanelVectors(Form::kNibbles) * 512 + lane * 4));
        uint4 vectors[kGroup / 2];
#pragma unroll
        for (int v = 0; v < kGroup / 2; ++v) vectors[v] = LoadShared16(codes + v * 512 + lane * 16);
        uint32_t line = own + chunk * kGroup * lines;
#pragma unroll
        for (int j = 0; j < kGroup; ++j) {
          uint32_t b[kTiles][4];
#pragma unroll
          for (int i = 0; i < kTiles; ++i) LoadMatrices(line + i * 8 * kLineBytes, b[i]);
          line += lines;
          const uint4& vector = vectors[j / 2];
          const uint32_t words[2] = {j % 2 == 0 ? vector.x : vector.z, j % 2 == 0 ? vector.y : vector.w};
#pragma unroll
          for (int s = 0; s < 2; ++s) {
            uint32_t a[4];
            gains.Decode(words[s], s, a);
#pragma unroll
            for (int i = 0; i < kTiles; ++i) MultiplyHalves(sum[i][s], a, b[i][2 * s], b[i][2 * s + 1]);
          }
        }
      }
      __syncwarp();
      if (lane == 0) Arrive(barriers.empty + turn.slot * 8);
      turn.Advance(cut.depth);
      chunk += kFewWarps;
      if (item >= band.items || (chunk < band.chunks && item + kFewWarps < band.items)) continue;
      // The warp's last of the tile.
      pass_to(number * share.count + tile);
      tell([&] {
#pragma unroll
        for (int i = 0; i < kTiles; ++i) {
          float both[4];
#pragma unroll
          for (int r = 0; r < 4; ++r) both[r] = sum[i][0][r] + sum[i][1][r], sum[i][0][r] = sum[i][1][r] = 0;
          StoreShared16(partials + (stage.slot * kFewWarps * kTiles + i) * 512, both);
        }
      });
      for (; chunk >= band.chunks; chunk -= band.chunks) ++tile;
    }
    pass_to((number + 1) * share.count);
  }
}

// How shared memory is shared out; false if it does not do at all. A block with few rounds leaves room for one of the kernel behind, which
// then begins sooner; with many a deeper ring gains more.
inline bool CutFew(const PackedView& w, int rows, int parts, int tiles, int limit, FewCut* cut) {
  constexpr int kBeside = 1024;  // that a block takes besides
  const int lines = parts > 1 ? 16 : rows, share_tiles = (w.tiles + w.shares - 1) / w.shares;
  const int rounds = (share_tiles * w.chunks + kFewWarps - 1) / kFewWarps;
  for (cut->pitch = 1; cut->pitch < lines;) cut->pitch *= 2;
  const auto fits = [&](int bands, int depth, int most) {
    const int even = (w.chunks + bands - 1) / bands;
    cut->band = bands == 1 ? w.chunks : (even + kFewWarps - 1) / kFewWarps * kFewWarps;
    cut->depth = depth;
    cut->rounds = FewBarriers::kBytes;
    cut->activations = cut->rounds + depth * kRoundBytes;
    cut->partials = cut->activations + cut->band * kGroup * cut->pitch * kLineBytes;
    cut->sums = cut->partials + FewBarriers::kStages * kFewWarps * tiles * 512;
    cut->bytes = cut->sums + (bands > 1 ? share_tiles * tiles * 512 : 0);
    // A block with a few rounds needs its first one soon, and no more.
    cut->early = rounds <= 4 ? 1 : 2;
    return cut->bytes <= most;
  };
  if (tiles == 1 && rounds <= 16 && fits(1, 4, limit / 2 - kBeside)) return true;
  for (int bands = 1; bands <= w.chunks; ++bands) {
    for (int depth = FewBarriers::kMostRounds; depth > 1; --depth)
      if (fits(bands, depth, limit)) return true;
  }
  return false;
}

}  // namespace
}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_NIBBLES_FEW_CUH_
