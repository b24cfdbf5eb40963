#include <algorithm>
#include <type_traits>

#include "device.h"
#include "errors.h"
#include "lookup.cuh"
#include "overlap.h"
#include "vlut.h"

namespace cosetq::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kBlocks = 2;  // lattice points of a group

// A chunk has a table for each step, lane 4g + t and block. In turn i lane 4g + t looks up what it has in step i ^ g, so that the
// lanes of a warp read 32 different tables, and a table is a bank of shared memory: entry d of those of a block is at
// (block * kDigits + d) * 32 + 4 * step + t.
template <Form kForm>
struct Tables {
  static constexpr int kCoarse = kForm == Form::kNibbleByte ? 256 : 0;  // entries of a coarse table of its own
  static constexpr int kDigits = FineDigits(kForm) + kCoarse;
  static constexpr int kEntryBytes = 32 * sizeof(float);
  static constexpr int kBytes = kBlocks * kDigits * kEntryBytes;
  // Of a sum over both levels, how often the entry of a fine digit's table is in it: the bias and centre come in as many parts.
  static constexpr int kParts = kForm == Form::kTwoByte ? 1 + kLevelRatio : 1;
};

// Makes lane 4g + t, which holds what step k ^ i has as number k of the array for i < kCount, hold step k ^ (g % kCount), shifted.
template <int kCount>
__device__ __forceinline__ void Reorder(uint32_t* words, int g) {
#pragma unroll
  for (int bit = 1; bit < kCount; bit *= 2) {
    const bool exchange = (g & bit) != 0;
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      if (k & bit) continue;
      const uint32_t low = words[k], high = words[k | bit];
      words[k] = exchange ? high : low;
      words[k | bit] = exchange ? low : high;
    }
  }
}

// A panel in the order of turns: words and gains as PanelCodes and ExpandGains have them, with a lane's turns for steps.
template <Form kForm>
struct Turns {
  PanelCodes<kForm> codes;
  uint32_t gains[2][2];

  __device__ __forceinline__ void Load(const unsigned char* panel, uint32_t values, int lane) {
    constexpr int kStepVectors = kForm == Form::kTwoByte ? 4 : 2;           // vectors that hold a word of each step, or two
    constexpr int kVectorSteps = kPanelSteps / kStepVectors;
    const int g = lane / 4;
    uint32_t* words = codes.words;
#pragma unroll
    for (int v = 0; v < PanelVectors(kForm); ++v) {
      const int from = v < kStepVectors ? v ^ g / kVectorSteps : v;
      const uint4 vector = __ldg(reinterpret_cast<const uint4*>(panel) + from * 32 + lane);
      words[4 * v] = vector.x;
      words[4 * v + 1] = vector.y;
      words[4 * v + 2] = vector.z;
      words[4 * v + 3] = vector.w;
    }
    const uint32_t packed = __ldg(reinterpret_cast<const uint32_t*>(panel + PanelVectors(kForm) * 512) + lane);
    if constexpr (kForm == Form::kTwoByte) {
#pragma unroll
      for (int v = 0; v < kStepVectors; ++v) {
        uint32_t fine[2] = {words[4 * v], words[4 * v + 2]}, coarse[2] = {words[4 * v + 1], words[4 * v + 3]};
        Reorder<2>(fine, g);
        Reorder<2>(coarse, g);
        words[4 * v] = fine[0];
        words[4 * v + 1] = coarse[0];
        words[4 * v + 2] = fine[1];
        words[4 * v + 3] = coarse[1];
      }
    } else {
      Reorder<4>(words, g);
      Reorder<4>(words + 4, g);
    }
    if constexpr (kForm == Form::kNibbleByte) {
      Reorder<4>(words + 8, g / 2);
      const uint32_t halves = g % 2 == 0 ? 0x3210 : 0x1032;
#pragma unroll
      for (int k = 8; k < 12; ++k) words[k] = __byte_perm(words[k], 0, halves);
    }
    ExpandGains(values, packed, gains);
    const uint32_t bytes = 0x3210 ^ g % 4 * 0x1111;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      Reorder<2>(gains[half], g / 4);
      gains[half][0] = __byte_perm(gains[half][0], 0, bytes);
      gains[half][1] = __byte_perm(gains[half][1], 0, bytes);
    }
  }
};

// An entry of the table at an address, which digits times 128 are added to already.
template <int kOffset>
__device__ __forceinline__ float Entry(uint32_t address) {
  float entry;
  asm volatile("ld.shared.f32 %0, [%1 + %2];" : "=f"(entry) : "r"(address), "n"(kOffset));
  return entry;
}

// The products of the codewords of a row, half 0 or 1, in a turn; tables is the address of the lane's tables of the turn.
template <Form kForm, int kTurn, int kHalf>
__device__ __forceinline__ float LookUpTurn(const PanelCodes<kForm>& codes, uint32_t tables) {
  using T = Tables<kForm>;
  constexpr int kSecond = T::kDigits * T::kEntryBytes;  // the tables of the second block
  constexpr uint32_t kTake[kBlocks] = {128u << (8 * kHalf), 128u << (8 * (2 + kHalf))};
  static_assert(T::kEntryBytes == 128);
  const auto both = [&](uint32_t digits, auto offset) {
    return Entry<decltype(offset)::value>(__dp4a(digits, kTake[0], tables)) +
           Entry<decltype(offset)::value + kSecond>(__dp4a(digits, kTake[1], tables));
  };
  using First = std::integral_constant<int, 0>;
  if constexpr (kForm == Form::kOneByte) {
    return both(codes.words[kTurn], First());
  } else if constexpr (kForm == Form::kTwoByte) {
    return both(codes.words[2 * kTurn], First()) + static_cast<float>(kLevelRatio) * both(codes.words[2 * kTurn + 1], First());
  } else {
    constexpr int kNibble = kTurn % 2 * 4 + kHalf;
    const uint32_t fine = codes.words[8 + kTurn / 2];
    const auto offset = [&](int nibble) { return (4 * nibble < 7 ? fine << (7 - 4 * nibble) : fine >> (4 * nibble - 7)) & 15u * 128; };
    return both(codes.words[kTurn], std::integral_constant<int, FineDigits(kForm) * T::kEntryBytes>()) +
           (Entry<0>(tables + offset(kNibble)) + Entry<kSecond>(tables + offset(kNibble + 2)));
  }
}

template <Form kForm, int kTurn = 0>
__device__ __forceinline__ void LookUpPanel(const Turns<kForm>& turns, uint32_t tables, float (&sums)[2]) {
  if constexpr (kTurn < kPanelSteps) {
    const uint32_t of_turn = tables ^ kTurn * 4 * static_cast<uint32_t>(sizeof(float));
    const auto gain = [&](int half) { return static_cast<float>(turns.gains[half][kTurn / 4] >> (kTurn % 4 * 8) & 255); };
    sums[0] += gain(0) * LookUpTurn<kForm, kTurn, 0>(turns.codes, of_turn);
    sums[1] += gain(1) * LookUpTurn<kForm, kTurn, 1>(turns.codes, of_turn);
    LookUpPanel<kForm, kTurn + 1>(turns, tables, sums);
  }
}

// Makes the tables of a chunk. Lane 4 * step + t makes those that are in its bank.
template <Form kForm>
__device__ __forceinline__ void MakeTables(const PackedView& w, int chunk, const float* query, float4* words, float* tables) {
  using T = Tables<kForm>;
  for (int d = threadIdx.x; d < T::kDigits; d += kThreads) {
    const uint32_t word = d < FineDigits(kForm) ? __ldg(w.points.fine + d) : __ldg(w.points.coarse + d - FineDigits(kForm));
    const auto coordinate = [&](int j) { return static_cast<float>(word >> (8 * j) & 255); };
    words[d] = make_float4(coordinate(0), coordinate(1), coordinate(2), coordinate(3));
  }
  WaitForKernelsAhead();
  const int lane = threadIdx.x % 32, group = chunk * kPanelGroups + GroupOf(kForm, lane / 4, lane % 4);
  float x[kBlocks][4], rest[kBlocks] = {};  // the query's block; what bias and centre take of an entry
#pragma unroll
  for (int block = 0; block < kBlocks; ++block) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int column = group + w.groups * (4 * block + j);
      x[block][j] = group < w.groups && column < w.cols ? query[column] : 0.0f;
      rest[block] += x[block][j] * ((static_cast<float>(w.points.bias) + w.points.centre[4 * block + j]) / T::kParts);
    }
  }
  __syncthreads();
  for (int d = threadIdx.x / 32; d < T::kDigits; d += kWarps) {
    const float4 word = words[d];
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) {
      float sum = d < FineDigits(kForm) ? -rest[block] : 0;
      sum += x[block][0] * word.x;
      sum += x[block][1] * word.y;
      sum += x[block][2] * word.z;
      sum += x[block][3] * word.w;
      tables[(block * T::kDigits + d) * 32 + lane] = sum;
    }
  }
  __syncthreads();
}

// A block of threads makes the tables of a chunk, then goes through its rows. The sums of a chunk go to partial.
template <Form kForm>
__global__ void __launch_bounds__(kThreads, 2) Products(PackedView w, const float* query, float* partial) {
  extern __shared__ __align__(128) float tables[];
  __shared__ float4 words[Tables<kForm>::kDigits];
  const int chunk = blockIdx.y;
  MakeTables<kForm>(w, chunk, query, words, tables);
  LetNextKernelBegin();
  const int lane = threadIdx.x % 32;
  const auto lane_tables = static_cast<uint32_t>(__cvta_generic_to_shared(tables)) + static_cast<uint32_t>(lane * sizeof(float));
  for (int tile = blockIdx.x * kWarps + threadIdx.x / 32; tile < w.tiles; tile += gridDim.x * kWarps) {
    Turns<kForm> turns;
    turns.Load(TilePanels(w, tile)[chunk], w.points.gains, lane);
    float sums[2] = {};
    LookUpPanel<kForm>(turns, lane_tables, sums);
    // Of a pair of lanes one goes on with row g, the other with g + 8.
    const bool second = lane % 2 != 0;
    float sum = (second ? sums[1] : sums[0]) + __shfl_xor_sync(0xffffffffu, second ? sums[0] : sums[1], 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    const int row = tile * kPanelRows + lane / 4 + 8 * (lane % 2);
    if (lane % 4 < 2 && row < w.rows) partial[static_cast<int64_t>(chunk) * w.rows + row] = sum;
  }
}

__global__ void AddChunks(PackedView w, const float* partial, float* y) {
  const int row = blockIdx.x * blockDim.x + threadIdx.x;
  WaitForKernelsAhead();
  LetNextKernelBegin();
  if (row >= w.rows) return;
  float sum = 0;
#pragma unroll 16
  for (int chunk = 0; chunk < w.chunks; ++chunk) sum += partial[static_cast<int64_t>(chunk) * w.rows + row];
  y[row] = sum * w.scales[row];
}

template <Form kForm>
void Launch(const PackedView& w, const float* query, float* partial, float* y, cudaStream_t stream) {
  constexpr int kShared = Tables<kForm>::kBytes;
  AllowSharedMemory(Products<kForm>, kShared);
  const Device& device = CurrentDevice();
  // Two blocks on each multiprocessor; every block has tables to make before it begins.
  const int blocks = std::max(1, std::min(2 * device.processors / w.chunks, (w.tiles + kWarps - 1) / kWarps));
  LaunchOverlapped("look up products", Products<kForm>, dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(w.chunks)), kThreads,
                   kShared, device.hopper, stream, w, query, partial);
  constexpr unsigned kAdders = 128;
  LaunchOverlapped("add products", AddChunks, dim3((static_cast<unsigned>(w.rows) + kAdders - 1) / kAdders), kAdders, 0, device.hopper,
                   stream, w, partial, y);
}

}  // namespace

void OneSided(const PackedView& w, const float* query, float* partial, float* y, cudaStream_t stream) {
  switch (w.form) {
    case Form::kOneByte:
      return Launch<Form::kOneByte>(w, query, partial, y, stream);
    case Form::kTwoByte:
      return Launch<Form::kTwoByte>(w, query, partial, y, stream);
    default:
      return Launch<Form::kNibbleByte>(w, query, partial, y, stream);
  }
}

}  // namespace cosetq::cuda
