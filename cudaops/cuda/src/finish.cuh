// How sums of a tile leave the registers of a warp group: to another block that finishes a part of the tile, or as results.

#ifndef COSETQ_CUDA_FINISH_CUH_
#define COSETQ_CUDA_FINISH_CUH_

#include <cuda_fp16.h>

#include <cstring>
#include <type_traits>

#include "operands.cuh"
#include "shared.cuh"
#include "slice_ring.cuh"
#include "tiles.cuh"

namespace cosetq::cuda {

// Activations as the kernel reads them: slices [column tile][slice][column of the tile], with the 16-byte pieces of column c at
// piece ^ c % 8; of every column, what its sum is multiplied by, and with bytes also what the sum of the corrections is multiplied by
// before, and what the bias of the weights has added to the sum. All null for rows that are read as they lie.
struct WideActivations {
  unsigned char* slices;
  float* steps;
  int32_t *corrections, *added;  // corrections times 2^-31
};

constexpr int kWideRows = kConsumerWarps * kPanelRows;
constexpr int kGroupThreads = 128, kGroupRows = kWideRows / 2;  // of a warp group

// Waits for the threads of the warp group.
__device__ __forceinline__ void WaitForGroup() {
  asm volatile("bar.sync %0, %1;" ::"r"(2 + static_cast<int>(threadIdx.x) / kGroupThreads), "n"(kGroupThreads) : "memory");
}

// Waits for the warp groups that multiply.
__device__ __forceinline__ void WaitForConsumers() { asm volatile("bar.sync 1, %0;" ::"n"(kConsumers) : "memory"); }

// Sixteen columns, of which a lane has eight sums, are summed up together.
constexpr int kPieceColumns = 16, kPieceSums = 8;

// The pieces of a tile that one of several blocks owns: it finishes them. Their count is a power of 2.
struct Pieces {
  int rank, shift;  // 2^shift pieces for each

  __device__ __forceinline__ Pieces(int pieces, int rank_of_block, int blocks) {
    rank = rank_of_block;
    shift = 31 - __clz(pieces / blocks);
  }
  __device__ __forceinline__ bool Mine(int piece) const { return piece >> shift == rank; }
  // Whether any of first ... last is.
  __device__ __forceinline__ bool Mine(int first, int last) const { return first >> shift <= rank && rank <= last >> shift; }
};

template <typename Sum>
__device__ __forceinline__ uint4 AsWords(const Sum* sums) {
  uint4 words;
  memcpy(&words, sums, 16);
  return words;
}

template <typename Sum>
__device__ __forceinline__ void AddWords(const uint4& words, Sum* sums) {
  Sum add[4];
  memcpy(add, &words, 16);
#pragma unroll
  for (int k = 0; k < 4; ++k) sums[k] += add[k];
}

// Adds up what two warp groups have multiplied, each with a half of the columns of the weight, by way of shared memory, which nobody must
// be using when a warp group comes here but the other one: each then has the pieces that it owns, one half of them.
template <typename Sum, int kSums>
__device__ __forceinline__ void AddUpGroups(uint4* memory, Sum (&s)[kSums], const Pieces& own) {
  constexpr int kHalf = kSums / 8;  // words of a thread
  const int thread = threadIdx.x % kGroupThreads, group = threadIdx.x / kGroupThreads;
  WaitForConsumers();  // they may still multiply by what is there
  uint4* to = memory + (1 - group) * kHalf * kGroupThreads + thread;
#pragma unroll
  for (int i = 0; i < 2 * kHalf; ++i)
    if (!own.Mine(i * 4 / kPieceSums)) to[i % kHalf * kGroupThreads] = AsWords(&s[4 * i]);
  WaitForConsumers();
  const uint4* from = memory + group * kHalf * kGroupThreads + thread;
#pragma unroll
  for (int i = 0; i < 2 * kHalf; ++i)
    if (own.Mine(i * 4 / kPieceSums)) AddWords(from[i % kHalf * kGroupThreads], &s[4 * i]);
}

// Sums that blocks leave for others, of each block one tile at most.
struct Handover {
  uint4* sums;      // [block][4 sums][kConsumers]
  uint32_t* ready;  // [block][warp], 0 until the sums are there; blocks of a cluster have barriers for it instead

  template <int kSums>
  __device__ __forceinline__ uint4* Of(int block) const {
    return sums + (static_cast<int64_t>(block) * (kSums / 4)) * kConsumers + threadIdx.x;
  }
  __device__ __forceinline__ uint32_t* Ready(int block) const { return ready + kConsumerWarps * block + threadIdx.x / 32; }

  // Leaves what this warp has, all or a half, but does not own. Tell says so, better a little later, so that nobody waits for the stores.
  template <typename Sum, int kSums>
  __device__ __forceinline__ void Leave(const Sum (&s)[kSums], const Pieces& has, const Pieces& own) const {
    uint4* to = Of<kSums>(blockIdx.x);
#pragma unroll
    for (int i = 0; i < kSums; i += 4)
      if (has.Mine(i / kPieceSums) && !own.Mine(i / kPieceSums)) __stcg(to + i / 4 * kConsumers, AsWords(&s[i]));
  }
  __device__ __forceinline__ void Tell() const {
    __threadfence();
    __syncwarp();
    if (threadIdx.x % 32 == 0) asm volatile("st.release.gpu.global.u32 [%0], 1;" ::"l"(Ready(blockIdx.x)) : "memory");
  }

  // Waits until a warp of another block says so.
  __device__ __forceinline__ void Wait(int block) const {
    uint32_t there = 0;
    while (there == 0) asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(there) : "l"(Ready(block)) : "memory");
    __syncwarp();
  }

  // The same among the blocks of a cluster, each of which has a barrier for every warp.
  __device__ __forceinline__ static void TellCluster(uint32_t barrier, int blocks, int rank) {
    __syncwarp();
    const int lane = threadIdx.x % 32;
    if (lane < blocks && lane != rank) TellInCluster(InBlock(barrier, lane));
  }

  // Adds what a warp of another block has left to what this one owns.
  template <typename Sum, int kSums>
  __device__ __forceinline__ void Add(int block, Sum (&s)[kSums], const Pieces& own) const {
    const uint4* from = Of<kSums>(block);
    constexpr int kAtOnce = 8;
#pragma unroll
    for (int i = 0; i < kSums / 4; i += kAtOnce) {
      const int last = (i + kAtOnce) * 4 / kPieceSums - 1;
      if (!own.Mine(i * 4 / kPieceSums, last)) continue;
      uint4 words[kAtOnce];
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) words[k] = __ldcg(from + (i + k) * kConsumers);
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k)
        if (own.Mine((i + k) * 4 / kPieceSums)) AddWords(words[k], &s[(i + k) * 4]);
    }
  }
};

// What becomes of sums on their way out, in shared memory, of each warp group.
template <bool kBytes, int kColumns>
struct TileFactors {
  float steps[kColumns];                         // what sums of a column are multiplied by
  int32_t corrections[kColumns], added[kColumns];  // see WideActivations
  float scales[kGroupRows], offsets[kGroupRows];  // of rows

  // Begins to load those of a tile, and of rows from first_row on.
  __device__ __forceinline__ void Load(const PackedView& w, int first_row, int column_tile, const WideActivations& x) {
    const int thread = threadIdx.x % kGroupThreads;
    const int64_t column = static_cast<int64_t>(column_tile) * kColumns;
    const auto shared = [](const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); };
    for (int i = thread * 4; i < kColumns; i += kGroupThreads * 4) {
      if (kBytes || x.steps != nullptr) {
        CopyAsync16(shared(steps + i), x.steps + column + i);
      } else {
        *reinterpret_cast<float4*>(steps + i) = make_float4(1, 1, 1, 1);
      }
      if (kBytes) {
        CopyAsync16(shared(corrections + i), x.corrections + column + i);
        CopyAsync16(shared(added + i), x.added + column + i);
      }
    }
    const int row = first_row + thread;
    if (thread < kGroupRows) {
      CopyAsync4(shared(scales + thread), w.scales + min(row, w.rows - 1));
      if (w.offsets != nullptr) {
        CopyAsync4(shared(offsets + thread), w.offsets + min(row, w.rows - 1));
      } else {
        offsets[thread] = 0;
      }
    }
    CommitCopies();
  }
  // Waits until they are there.
  __device__ __forceinline__ static void Wait() {
    WaitForCopies<0>();
    WaitForGroup();
  }
};

// Where results go.
struct Results {
  void* y;  // [batch][rows]
  int batch, rows;
  bool half;
};

// Results of a tile on their way out, [buffer][column][row of the warp group]. Rows are padded, so that eight columns lie in
// different banks.
struct ResultStage {
  static constexpr int kColumns = 32, kPitch = kGroupRows + 8;
  __half of[2][kColumns][kPitch];
};

// Writes the results of a warp group, of rows from first_row on: of the columns that it owns, if others share the tile.
template <bool kBytes, int kColumns, typename Sum>
__device__ __forceinline__ void StoreResults(const Sum (&sums)[kColumns / 2], const TileFactors<kBytes, kColumns>& factors, const Pieces& pieces,
                                             int first_row, int column_tile, const Results& out, ResultStage& stage) {
  int thread = threadIdx.x % kGroupThreads, all_rows = out.rows;
  asm volatile("" : "+r"(thread), "+r"(all_rows));  // or addresses for every tile take registers all the time
  const int warp = thread / 32, lane = thread % 32, g = lane / 4, t = lane % 4;
  const float scales[2] = {factors.scales[warp * kPanelRows + g], factors.scales[warp * kPanelRows + g + 8]};
  const float offsets[2] = {factors.offsets[warp * kPanelRows + g], factors.offsets[warp * kPanelRows + g + 8]};
  // Results 2i and 2i + 1: of two columns of a row.
  const auto results = [&](int i) {
    const int column = i / 4 * 8 + 2 * t, half = i / 2 % 2;
    const float2 step = *reinterpret_cast<const float2*>(factors.steps + column);
    Sum sum[2] = {sums[i], sums[i + 1]};
    if constexpr (kBytes) {
      const int2 bias = *reinterpret_cast<const int2*>(factors.added + column);
      sum[0] -= bias.x;
      sum[1] -= bias.y;
    }
    return make_float2(static_cast<float>(sum[0]) * step.x * scales[half] + offsets[half],
                       static_cast<float>(sum[1]) * step.y * scales[half] + offsets[half]);
  };
  const int64_t first_column = static_cast<int64_t>(column_tile) * kColumns;
  const int columns = static_cast<int>(min(static_cast<int64_t>(kColumns), out.batch - first_column));
  if (!out.half) {
    auto* y = static_cast<float*>(out.y) + first_column * all_rows;
    const int row = first_row + warp * kPanelRows + g;
#pragma unroll
    for (int i = 0; i < kColumns / 2; i += 2) {
      if (!pieces.Mine(i / kPieceSums)) continue;
      const int column = i / 4 * 8 + 2 * t, at = row + i / 2 % 2 * 8;
      const float2 y2 = results(i);
      float* to = y + static_cast<int64_t>(column) * all_rows + at;
      if (at < all_rows && column < columns) to[0] = y2.x;
      if (at < all_rows && column + 1 < columns) to[all_rows] = y2.y;
    }
    WaitForGroup();  // before the factors of the next tile come
    return;
  }
  // Through shared memory, so that rows leave in order.
  auto* y = static_cast<__half*>(out.y) + first_column * all_rows + first_row;
  const int rows = min(kGroupRows, all_rows - first_row);
  const bool whole = rows == kGroupRows && all_rows % 8 == 0 && reinterpret_cast<uintptr_t>(out.y) % 16 == 0;
  const int matrix = lane / 8;  // of the four that a store writes, lane % 8 is the column
  constexpr int kRounds = kColumns / ResultStage::kColumns, kRoundPieces = ResultStage::kColumns / kPieceColumns;
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    const auto mine = [&](int part) { return pieces.Mine(round * kRoundPieces + part); };
    if (!mine(0) && !mine(1)) continue;
    auto& buffer = stage.of[round % 2];
#pragma unroll
    for (int part = 0; part < kRoundPieces; ++part) {
      if (!mine(part)) continue;
      uint32_t words[4];
#pragma unroll
      for (int k = 0; k < 4; ++k)
        words[k] = AsWord(__float22half2_rn(results((round * kRoundPieces + part) * kPieceSums + 2 * k)));
      const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(
          &buffer[part * kPieceColumns + matrix / 2 * 8 + lane % 8][warp * kPanelRows + matrix % 2 * 8]));
      asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(words[0]), "r"(words[1]),
                   "r"(words[2]), "r"(words[3])
                   : "memory");
    }
    WaitForGroup();
    const int first = round * ResultStage::kColumns;
#pragma unroll
    for (int part = 0; part < kRoundPieces; ++part) {
      if (!mine(part)) continue;
      if (whole) {
        const int column = part * kPieceColumns + thread / 8, at = thread % 8 * 8;
        if (first + column < columns)
          *reinterpret_cast<uint4*>(y + static_cast<int64_t>(first + column) * all_rows + at) =
              *reinterpret_cast<const uint4*>(&buffer[column][at]);
      } else {
#pragma unroll 1
        for (int i = thread; i < kPieceColumns * kGroupRows; i += kGroupThreads) {
          const int column = part * kPieceColumns + i / kGroupRows, at = i % kGroupRows;
          if (first + column < columns && at < rows) y[static_cast<int64_t>(first + column) * all_rows + at] = buffer[column][at];
        }
      }
    }
  }
}

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_FINISH_CUH_
