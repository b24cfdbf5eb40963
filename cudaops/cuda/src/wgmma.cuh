// Products of a warp group (wgmma, compute capability 9.0): 64 rows of A in registers by columns of B in shared memory.
//
// Lane 4g + t of warp i holds in d[4n ...] the sums of rows 16i + g (first two) and 16i + g + 8 with the columns
// 8n + 2t and 8n + 2t + 1, and in a the registers of m16n8k16 or m16n8k32 for rows 16i ... 16i + 15.

#ifndef COSETQ_CUDA_WGMMA_CUH_
#define COSETQ_CUDA_WGMMA_CUH_

#include <cstdint>

namespace cosetq::cuda {

// Describes columns of B in shared memory: 128 bytes along K for each, the 16-byte piece i of column c at the place
// i xor c mod 8, all aligned to 1024 bytes.
__device__ __forceinline__ uint64_t Columns(uint32_t shared) {
  const uint32_t low = (shared >> 4 & 0x3fff) | 1u << 16;
  return uint64_t{1u << 30 | 1024 >> 4} << 32 | low;
}

// The same of 64 bytes along K for each, the piece i of column c at the place i xor c / 2 mod 4, aligned to 512 bytes.
__device__ __forceinline__ uint64_t NarrowColumns(uint32_t shared) {
  const uint32_t low = (shared >> 4 & 0x3fff) | 1u << 16;
  return uint64_t{1u << 31 | 512 >> 4} << 32 | low;
}

// Describes rows of B in shared memory: 128 bytes of each, 64 float16 numbers, the 16-byte piece i of row k at the place i xor k mod 8, all aligned
// to 1024 bytes. Those of the next 64 columns lie so many bytes behind.
__device__ __forceinline__ uint64_t Rows(uint32_t shared, int next) {
  const uint32_t low = (shared >> 4 & 0x3fff) | static_cast<uint32_t>(next >> 4) << 16;
  return uint64_t{1u << 30 | 1024 >> 4} << 32 | low;
}

__device__ __forceinline__ void BeginProducts() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void CommitProducts() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until no more than the kBut last commits are under way.
template <int kBut>
__device__ __forceinline__ void WaitForProducts() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kBut) : "memory");
}

// Registers that products under way read must stay as they are, also when nothing else reads them.
template <int kUnits>
__device__ __forceinline__ void Keep(uint32_t (&a)[kUnits][4]) {
#pragma unroll
  for (int i = 0; i < kUnits; ++i) asm volatile("" : "+r"(a[i][0]), "+r"(a[i][1]), "+r"(a[i][2]), "+r"(a[i][3]));
}

// The same of sums that products under way write: nobody reads them before, and the compiler moves no copy ahead of this.
template <int kSums>
__device__ __forceinline__ void Keep(float (&sums)[kSums]) {
#pragma unroll
  for (int i = 0; i < kSums; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}
template <int kSums>
__device__ __forceinline__ void Keep(int (&sums)[kSums]) {
#pragma unroll
  for (int i = 0; i < kSums; ++i) asm volatile("" : "+r"(sums[i])::"memory");
}

// Lists of 16, 32, 64 and 128 registers: their names in the text of an instruction, and sums as its operands.
#define COSETQ_NAMES_10(tens) "%" tens "0, %" tens "1, %" tens "2, %" tens "3, %" tens "4, %" tens "5, %" tens "6, %" tens "7, %" tens "8, %" tens "9"
#define COSETQ_NAMES_30 COSETQ_NAMES_10("") ", " COSETQ_NAMES_10("1") ", " COSETQ_NAMES_10("2")
#define COSETQ_NAMES_60 COSETQ_NAMES_30 ", " COSETQ_NAMES_10("3") ", " COSETQ_NAMES_10("4") ", " COSETQ_NAMES_10("5")
#define COSETQ_NAMES_90 COSETQ_NAMES_60 ", " COSETQ_NAMES_10("6") ", " COSETQ_NAMES_10("7") ", " COSETQ_NAMES_10("8")
#define COSETQ_NAMES_120 COSETQ_NAMES_90 ", " COSETQ_NAMES_10("9") ", " COSETQ_NAMES_10("10") ", " COSETQ_NAMES_10("11")
#define COSETQ_NAMES_16 COSETQ_NAMES_10("") ", %10, %11, %12, %13, %14, %15"
#define COSETQ_NAMES_32 COSETQ_NAMES_30 ", %30, %31"
#define COSETQ_NAMES_64 COSETQ_NAMES_60 ", %60, %61, %62, %63"
#define COSETQ_NAMES_128 COSETQ_NAMES_120 ", %120, %121, %122, %123, %124, %125, %126, %127"
#define COSETQ_SUMS_4(kind, i) kind(d[i]), kind(d[(i) + 1]), kind(d[(i) + 2]), kind(d[(i) + 3])
#define COSETQ_SUMS_16(kind, i) COSETQ_SUMS_4(kind, i), COSETQ_SUMS_4(kind, (i) + 4), COSETQ_SUMS_4(kind, (i) + 8), COSETQ_SUMS_4(kind, (i) + 12)
#define COSETQ_SUMS_FROM(kind, i) COSETQ_SUMS_16(kind, i), COSETQ_SUMS_16(kind, (i) + 16)
#define COSETQ_SUMS_32(kind) COSETQ_SUMS_FROM(kind, 0)
#define COSETQ_SUMS_64(kind) COSETQ_SUMS_32(kind), COSETQ_SUMS_FROM(kind, 32)
#define COSETQ_SUMS_128(kind) COSETQ_SUMS_64(kind), COSETQ_SUMS_FROM(kind, 64), COSETQ_SUMS_FROM(kind, 96)

// D += A * B, 16 float16 numbers along K, for 256, 128 and 64 columns.
__device__ __forceinline__ void MultiplyColumns(float (&d)[128], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 {" COSETQ_NAMES_128 "}, {%128, %129, %130, %131}, %132, 1, 1, 1, 0;"
      : COSETQ_SUMS_128("+f")
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

__device__ __forceinline__ void MultiplyColumns(float (&d)[64], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" COSETQ_NAMES_64 "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 0;"
      : COSETQ_SUMS_64("+f")
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

__device__ __forceinline__ void MultiplyColumns(float (&d)[32], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" COSETQ_NAMES_32 "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 0;"
      : COSETQ_SUMS_32("+f")
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

// D += A * B, 32 bytes along K, unsigned in A, signed in B.
__device__ __forceinline__ void MultiplyColumns(int (&d)[128], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n256k32.s32.u8.s8 {" COSETQ_NAMES_128 "}, {%128, %129, %130, %131}, %132, 1;"
      : COSETQ_SUMS_128("+r")
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

__device__ __forceinline__ void MultiplyColumns(int (&d)[64], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k32.s32.u8.s8 {" COSETQ_NAMES_64 "}, {%64, %65, %66, %67}, %68, 1;"
      : COSETQ_SUMS_64("+r")
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

__device__ __forceinline__ void MultiplyColumns(int (&d)[32], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k32.s32.u8.s8 {" COSETQ_NAMES_32 "}, {%32, %33, %34, %35}, %36, 1;"
      : COSETQ_SUMS_32("+r")
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

__device__ __forceinline__ void MultiplyColumns(int (&d)[16], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n32k32.s32.u8.s8 {" COSETQ_NAMES_16 "}, {%16, %17, %18, %19}, %20, 1;"
      : COSETQ_SUMS_16("+r", 0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

// D = A * B and D += A * B: 64 rows of A in shared memory too, as Columns has it. 16 float16 numbers along K, for 128 columns.
__device__ __forceinline__ void SetToProducts(float (&d)[64], uint64_t a, uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" COSETQ_NAMES_64 "}, %64, %65, 0, 1, 1, 0, 0;"
      : COSETQ_SUMS_64("=f")
      : "l"(a), "l"(b));
}
__device__ __forceinline__ void AddProducts(float (&d)[64], uint64_t a, uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" COSETQ_NAMES_64 "}, %64, %65, 1, 1, 1, 0, 0;"
      : COSETQ_SUMS_64("+f")
      : "l"(a), "l"(b));
}

// D += A * B, 16 float16 numbers along K, for 128 and 64 columns, of rows of B as Rows has them.
__device__ __forceinline__ void MultiplyRows(float (&d)[64], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" COSETQ_NAMES_64 "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
      : COSETQ_SUMS_64("+f")
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
__device__ __forceinline__ void MultiplyRows(float (&d)[32], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" COSETQ_NAMES_32 "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
      : COSETQ_SUMS_32("+f")
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

#undef COSETQ_NAMES_10
#undef COSETQ_NAMES_30
#undef COSETQ_NAMES_60
#undef COSETQ_NAMES_90
#undef COSETQ_NAMES_120
#undef COSETQ_NAMES_16
#undef COSETQ_NAMES_32
#undef COSETQ_NAMES_64
#undef COSETQ_NAMES_128
#undef COSETQ_SUMS_4
#undef COSETQ_SUMS_16
#undef COSETQ_SUMS_FROM
#undef COSETQ_SUMS_32
#undef COSETQ_SUMS_64
#undef COSETQ_SUMS_128

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_WGMMA_CUH_
