// Attention of many queries of float16 numbers on Hopper (Shah et al., FlashAttention-3): each of two warp groups multiplies 64 rows by 128 keys at a
// time, and a warp of a third has the copy engine keep keys and values coming. While a group makes weights of scores, the other one
// multiplies, and its own products by the values of the step before go on.

#include "attention_groups.h"

#include "attention_hidden.cuh"
#include "attention_tensor.cuh"
#include "pipeline.cuh"
#include "row_map.h"
#include "wgmma.cuh"

namespace cosetq::ep {
namespace {

constexpr int kStages = 2, kLine = 64;  // numbers that lie together in shared memory

template <int kWidth, bool kPlain>
struct GroupsMemory {
  Half q[kGroups][kWidth / kLine][kGroupRows][kLine];
  Half k[kStages][kWidth / kLine][kGroupsKeys][kLine];
  Half v[kStages][kWidth / kLine][kGroupsKeys][kLine];
  uint64_t full_k[kStages], full_v[kStages], empty_k[kStages], empty_v[kStages], landed;
  uint16_t seen[kPlain ? 1 : kMaxKeyTiles];  // tiles of keys, the first bit set where the mask adds something
  int steps;
};

__device__ __forceinline__ uint32_t SharedAddress(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

// Numbers from a column on, of as many keys as the box has.
__device__ __forceinline__ void FetchKeys(void* to, const CUtensorMap* map, int column, int key, int head, int batch, uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(SharedAddress(to)),
               "l"(map), "r"(column), "r"(key), "r"(head), "r"(batch), "r"(barrier)
               : "memory");
}

// Warp groups take turns: one begins products when the other has begun its own.
__device__ __forceinline__ void AwaitTurn(int group) { asm volatile("bar.sync %0, %1;" ::"r"(1 + group), "n"(kGroups * 128) : "memory"); }
__device__ __forceinline__ void PassTurn(int group) { asm volatile("bar.arrive %0, %1;" ::"r"(2 - group), "n"(kGroups * 128) : "memory"); }
__device__ __forceinline__ void MeetGroup(int group) { asm volatile("bar.sync %0, 128;" ::"r"(3 + group) : "memory"); }

// 1 - 2 / (1 + e^2x), to an absolute 2^-22.
__device__ __forceinline__ float Tanh(float x) { return 1 - __fdividef(2, 1 + PowerOfTwo(2.8853900817779268f * x)); }

// kPlain: neither a mask nor a cap. A scale above 0.
template <int kWidth, bool kPlain>
__global__ void __launch_bounds__(kGroupsThreads, 1)
    AttendGroupsKernel(const __grid_constant__ Rules<Half> rules, const __grid_constant__ Division division, const __grid_constant__ CUtensorMap keys,
                       const __grid_constant__ CUtensorMap values) {
#if __CUDA_ARCH_FEAT_SM90_ALL
  constexpr int kLines = kWidth / kLine, kBoxBytes = kGroupsKeys * kLine * 2;
  extern __shared__ __align__(16) unsigned char shared[];  // at a multiple of 1024
  auto& memory = *reinterpret_cast<GroupsMemory<kWidth, kPlain>*>(shared);
  const Attention& a = rules.a;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32, group_of_heads = division.group;
  const auto full_k = [&](int stage) { return SharedAddress(&memory.full_k[stage]); };
  const auto full_v = [&](int stage) { return SharedAddress(&memory.full_v[stage]); };
  const auto empty_k = [&](int stage) { return SharedAddress(&memory.empty_k[stage]); };
  const auto empty_v = [&](int stage) { return SharedAddress(&memory.empty_v[stage]); };
  const uint32_t landed = SharedAddress(&memory.landed);
  if (thread == 0) {
    for (int i = 0; i < kStages; ++i) {
      cuda::InitBarrier(full_k(i), 1);
      cuda::InitBarrier(full_v(i), 1);
      cuda::InitBarrier(empty_k(i), 4 * kGroups);
      cuda::InitBarrier(empty_v(i), 4 * kGroups);
    }
    cuda::InitBarrier(landed, 1);
    cuda::PublishBarriers();
  }
  __syncthreads();
  Begin();
  // Where the last rows see most keys, those of all heads come first.
  const auto block = static_cast<int>(blockIdx.y * gridDim.x + blockIdx.x), heads = static_cast<int>(gridDim.y);
  const bool uneven = a.causal || (!kPlain && division.hidden != nullptr);
  const int tile = uneven ? static_cast<int>(gridDim.x) - 1 - block / heads : static_cast<int>(blockIdx.x);
  const int place = uneven ? block % heads : static_cast<int>(blockIdx.y), both = division.first + place, batch = both / a.kv_heads, kv_head = both % a.kv_heads;
  const int block_row = tile * kGroupsRows, block_rows = Least(kGroupsRows, division.rows - block_row);
  int first, end, unused;
  rules.Range(batch, block_row / group_of_heads, &first, &unused);
  rules.Range(batch, (block_row + block_rows - 1) / group_of_heads, &unused, &end);
  division.Cut(static_cast<int>(blockIdx.z), kGroupsKeys, &first, &end);
  const bool listed = !kPlain && division.hidden != nullptr;
  if constexpr (!kPlain) {
    if (listed) {
      if (warp == 0) {
        const uint8_t* own = division.hidden + (static_cast<int64_t>(a.mask_at.batch != 0 ? batch : 0) * gridDim.x + tile) * division.key_tiles;
        bool anchored = false;
        for (int i = first / kGroupsKeys + lane; i * kGroupsKeys < end; i += 32) anchored = anchored || (own[i] & kAnchor) != 0;
        anchored = __any_sync(0xffffffffu, anchored);
        int count = 0;
        for (int key0 = first; key0 < end; key0 += 32 * kGroupsKeys) {
          const int i = key0 / kGroupsKeys + lane, state = i * kGroupsKeys < end ? own[i] : kHidden;
          const bool sees = !Hides(state, anchored);
          const unsigned seen = __ballot_sync(0xffffffffu, sees);
          if (sees) memory.seen[count + __popc(seen & ((1u << lane) - 1))] = static_cast<uint16_t>(2 * i + ((state & 3) != kClear));
          count += __popc(seen);
        }
        if (lane == 0) memory.steps = count;
      }
      __syncthreads();
    }
  }
  // From the first lane, since the compiler would else take loops for ones that lanes leave alone, in which it has no products overlap.
  const int steps = __shfl_sync(0xffffffffu, listed ? memory.steps : end > first ? (end - first - 1) / kGroupsKeys + 1 : 0, 0);
  const auto key_of = [&](int step) { return listed ? __shfl_sync(0xffffffffu, memory.seen[step] / 2, 0) * kGroupsKeys : first + step * kGroupsKeys; };

  if (warp >= 4 * kGroups) {
    cuda::ShrinkRegisters<24>();
    if (warp > 4 * kGroups) return;
    const int written = rules.Keys(batch);
    for (int i = 0; i < steps; ++i) {
      const int stage = i % kStages, phase = i / kStages % 2, key0 = key_of(i);
      // What lies behind the last key may be anything, and 0 times that too.
      const bool cut = key0 + kGroupsKeys > written && written < a.keys;
      if (lane == 0) {
        cuda::Wait(empty_k(stage), phase ^ 1);
        cuda::Expect(kLines * kBoxBytes, full_k(stage));
        for (int j = 0; j < kLines; ++j) FetchKeys(memory.k[stage][j], &keys, j * kLine, key0, kv_head, batch, full_k(stage));
        cuda::Wait(empty_v(stage), phase ^ 1);
        const uint32_t there = cut ? landed : full_v(stage);
        cuda::Expect(kLines * kBoxBytes, there);
        for (int j = 0; j < kLines; ++j) FetchKeys(memory.v[stage][j], &values, j * kLine, key0, kv_head, batch, there);
      }
      if (!cut) continue;
      __syncwarp();
      cuda::Wait(landed, 0);  // no step follows
      for (int j = 0; j < kLines; ++j) {
        for (int key = Most(0, written - key0); key < kGroupsKeys; ++key) reinterpret_cast<uint32_t*>(memory.v[stage][j][key])[lane] = 0;
      }
      cuda::FenceCopyEngine();
      __syncwarp();
      if (lane == 0) cuda::Arrive(full_v(stage));
    }
    return;
  }

  cuda::GrowRegisters<240>();
  const int group = warp / 4, own = thread % 128, row0 = block_row + group * kGroupRows;
  for (int i = own; i < kGroupRows * kWidth / 8; i += 128) {
    const int row = row0 + i / (kWidth / 8), piece = i % (kWidth / 8), column = piece * 8;
    const bool there = row < division.rows && column < a.width;
    const int query = row / group_of_heads, head = kv_head * group_of_heads + row % group_of_heads;
    const Half* from = static_cast<const Half*>(a.q);
    if (there) from += batch * a.q_at.batch + head * a.q_at.head + query * a.q_at.token + column;
    CopyPiece(&memory.q[group][piece / 8][row - row0][(piece ^ (row - row0)) % 8 * 8], from, there ? 16 : 0);
  }
  int query[2], head[2], sees_first[2], sees_end[2];
  const int t = lane % 4;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = row0 + warp % 4 * 16 + lane / 4 + 8 * i;
    query[i] = row / group_of_heads;
    head[i] = kv_head * group_of_heads + row % group_of_heads;
    rules.Range(batch, query[i], &sees_first[i], &sees_end[i]);
    if (row >= division.rows) sees_end[i] = 0;
  }
  // What all rows of the group see.
  int all_first, all_end;
  rules.Range(batch, (Least(row0 + kGroupRows, division.rows) - 1) / group_of_heads, &all_first, &unused);
  rules.Range(batch, row0 / group_of_heads, &unused, &all_end);
  all_first = __shfl_sync(0xffffffffu, all_first, 0);
  all_end = __shfl_sync(0xffffffffu, all_end, 0);
  // Where rows of the mask begin.
  int64_t mask_at[2] = {};
  if constexpr (!kPlain) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = Least(row0 + warp % 4 * 16 + lane / 4 + 8 * i, division.rows - 1);
      mask_at[i] = batch * a.mask_at.batch + (kv_head * group_of_heads + row % group_of_heads) * a.mask_at.head + row / group_of_heads * a.mask_at.token;
    }
  }
  WaitForCopies();
  cuda::FenceCopyEngine();
  MeetGroup(group);

  float largest[2] = {-INFINITY, -INFINITY}, total[2] = {}, shrink[2], out[kWidth / 2];
#pragma unroll
  for (int i = 0; i < kWidth / 2; ++i) out[i] = 0;
  uint32_t weights[kGroupsKeys / 16][4];
  const float scale = a.scale * 1.4426950408889634f;  // to powers of two
  const uint32_t q_at = SharedAddress(memory.q[group]);
  using Scores = float[kGroupsKeys / 2];
  const auto multiply_keys = [&](int step, Scores& score) {
    const int stage = step % kStages;
    const uint32_t k_at = SharedAddress(memory.k[stage]);
#pragma unroll
    for (int d = 0; d < kWidth; d += 16) {
      const int line = d / kLine, inside = d % kLine * 2;
      const uint64_t q = cuda::Columns(q_at + line * kGroupRows * kLine * 2 + inside), k = cuda::Columns(k_at + line * kBoxBytes + inside);
      if (d == 0) {
        cuda::SetToProducts(score, q, k);
      } else {
        cuda::AddProducts(score, q, k);
      }
    }
    cuda::CommitProducts();
  };
  const auto multiply_values = [&](int step) {
    const uint32_t at = SharedAddress(memory.v[step % kStages]);
#pragma unroll
    for (int i = 0; i < kGroupsKeys / 16; ++i) cuda::MultiplyRows(out, weights[i], cuda::Rows(at + i * 16 * kLine * 2, kBoxBytes));
    cuda::CommitProducts();
  };
  // What the mask adds to scores, of two keys each, asked for while products are made.
  uint32_t added[2][kGroupsKeys / 8];
  const auto look = [&](int step) {
    if (kPlain || a.mask_kind == Attention::kNone) return false;
    if (listed && (__shfl_sync(0xffffffffu, memory.seen[step], 0) & 1) == 0) return false;
    const int step_key = key_of(step), key0 = step_key + 2 * t;
    const bool pairs = division.mask_pairs && step_key + kGroupsKeys <= a.mask_keys;
    constexpr uint32_t kNever = 0xfc00;  // -infinity
    if (pairs && a.mask_kind == Attention::kAdd) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const Half* const own = static_cast<const Half*>(a.mask) + mask_at[i] + key0;
#pragma unroll
        for (int n = 0; n < kGroupsKeys / 8; ++n) added[i][n] = *reinterpret_cast<const uint32_t*>(own + 8 * n);
      }
    } else if (pairs) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const uint8_t* const own = static_cast<const uint8_t*>(a.mask) + mask_at[i] + key0;
#pragma unroll
        for (int n = 0; n < kGroupsKeys / 8; ++n) {
          const uint32_t two = *reinterpret_cast<const uint16_t*>(own + 8 * n);
          added[i][n] = (two & 0xff ? 0 : kNever) | (two >> 8 ? 0 : kNever << 16);
        }
      }
    } else {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int n = 0; n < kGroupsKeys / 8; ++n) {
          added[i][n] = 0;
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int key = key0 + 8 * n + e;
            uint32_t x = kNever;
            if (key < a.mask_keys) {
              const int64_t at = mask_at[i] + key * a.mask_step;
              x = a.mask_kind == Attention::kAdd ? static_cast<const uint16_t*>(a.mask)[at] : static_cast<const uint8_t*>(a.mask)[at] ? 0 : kNever;
            }
            added[i][n] |= x << 16 * e;
          }
        }
      }
    }
    return true;
  };
  // Makes weights of scores, and what sums so far are multiplied by.
  const auto weigh = [&](int step, Scores& score, bool looked) {
    const int step_key = key_of(step), key0 = step_key + 2 * t;
    if constexpr (!kPlain) {
      if (a.cap != 0) {
        const float inner = a.scale / a.cap, outer = a.cap / a.scale;
#pragma unroll
        for (int j = 0; j < kGroupsKeys / 2; ++j) score[j] = outer * Tanh(score[j] * inner);
      }
      if (looked) {
        const float unit = 1 / a.scale;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
          for (int n = 0; n < kGroupsKeys / 8; ++n) {
            const float2 two = __half22float2(*reinterpret_cast<const __half2*>(&added[i][n]));
            score[4 * n + 2 * i] = fmaf(two.x, unit, score[4 * n + 2 * i]);
            score[4 * n + 2 * i + 1] = fmaf(two.y, unit, score[4 * n + 2 * i + 1]);
          }
        }
      }
    }
    if (step_key < all_first || step_key + kGroupsKeys > all_end) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int n = 0; n < kGroupsKeys / 8; ++n) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int key = key0 + 8 * n + e;
            if (key < sees_first[i] || key >= sees_end[i]) score[4 * n + 2 * i + e] = -INFINITY;
          }
        }
      }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float most = largest[i];
#pragma unroll
      for (int n = 0; n < kGroupsKeys / 8; ++n) most = fmaxf(most, fmaxf(score[4 * n + 2 * i], score[4 * n + 2 * i + 1]));
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
      const float base = most == -INFINITY ? 0 : most * scale;  // nothing has been seen, and all weights are 0
      shrink[i] = PowerOfTwo(fmaf(largest[i], scale, -base));
      largest[i] = most;
      total[i] *= shrink[i];
#pragma unroll
      for (int n = 0; n < kGroupsKeys / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& x = score[4 * n + 2 * i + e];
          x = PowerOfTwo(fmaf(x, scale, -base));
          total[i] += x;
        }
      }
    }
  };
  const auto pack = [&](const Scores& score) {
#pragma unroll
    for (int n = 0; n < kGroupsKeys / 16; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const __half2 two = __floats2half2_rn(score[8 * n + 2 * i], score[8 * n + 2 * i + 1]);
        weights[n][i] = *reinterpret_cast<const uint32_t*>(&two);
      }
    }
  };
  const auto wait_for = [&](uint32_t barrier, int step) { cuda::Wait(barrier, step / kStages % 2); };
  if (steps > 0) {
    if (group == 1) PassTurn(1);
    Scores score;
    wait_for(full_k(0), 0);
    AwaitTurn(group);
    cuda::BeginProducts();
    multiply_keys(0, score);
    if (group == 0 || steps > 1) PassTurn(group);
    const bool looked = look(0);
    cuda::WaitForProducts<0>();
    cuda::Keep(score);
    if (lane == 0) cuda::Arrive(empty_k(0));
    weigh(0, score, looked);
    pack(score);
    for (int step = 1; step < steps; ++step) {
      wait_for(full_k(step % kStages), step);
      wait_for(full_v((step - 1) % kStages), step - 1);
      AwaitTurn(group);
      cuda::Keep(out);
      cuda::Keep(weights);
      cuda::BeginProducts();
      multiply_keys(step, score);
      multiply_values(step - 1);
      if (group == 0 || step + 1 < steps) PassTurn(group);
      const bool looked_now = look(step);
      cuda::WaitForProducts<1>();
      cuda::Keep(score);
      if (lane == 0) cuda::Arrive(empty_k(step % kStages));
      weigh(step, score, looked_now);
      cuda::WaitForProducts<0>();
      cuda::Keep(out);
      cuda::Keep(weights);
      if (lane == 0) cuda::Arrive(empty_v((step - 1) % kStages));
#pragma unroll
      for (int n = 0; n < kWidth / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) out[4 * n + i] *= shrink[i / 2];
      }
      pack(score);
    }
    wait_for(full_v((steps - 1) % kStages), steps - 1);
    cuda::Keep(out);
    cuda::Keep(weights);
    cuda::BeginProducts();
    multiply_values(steps - 1);
    cuda::WaitForProducts<0>();
    cuda::Keep(out);
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    total[i] += __shfl_xor_sync(0xffffffffu, total[i], 1);
    total[i] += __shfl_xor_sync(0xffffffffu, total[i], 2);
    const int row = row0 + warp % 4 * 16 + lane / 4 + 8 * i;
    if (row >= division.rows) continue;
    const RowEnd<Half> to(rules, division, place, row, head[i], query[i], batch, largest[i] * a.scale, total[i], t == 0);
#pragma unroll
    for (int n = 0; n < kWidth / 8; ++n) {
      const int d = n * 8 + 2 * t;
      if (d < a.value_width) to.Store(rules, d, out[4 * n + 2 * i], out[4 * n + 2 * i + 1]);
    }
  }
#endif
}

template <int kWidth, bool kPlain>
const GroupsKernel& Kernel() {
  static const GroupsKernel kernel = [] {
    const GroupsKernel k{AttendGroupsKernel<kWidth, kPlain>, static_cast<int>(sizeof(GroupsMemory<kWidth, kPlain>))};
    if (cudaFuncSetAttribute(k.run, cudaFuncAttributeMaxDynamicSharedMemorySize, k.shared) != cudaSuccess)
      throw DeviceError("attention needs more shared memory than this GPU gives");
    return k;
  }();
  return kernel;
}

}  // namespace

const GroupsKernel& GroupsKernelFor(int width, bool plain) {
  if (width <= 64) return plain ? Kernel<64, true>() : Kernel<64, false>();
  return plain ? Kernel<128, true>() : Kernel<128, false>();
}

}  // namespace cosetq::ep
