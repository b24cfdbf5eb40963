// Barriers in shared memory and the copies that they count (compute capability 9.0).

#ifndef COSETQ_CUDA_PIPELINE_CUH_
#define COSETQ_CUDA_PIPELINE_CUH_

#include <cuda.h>

#include <cstdint>

namespace cosetq::cuda {

// True in one lane of a warp, all of which must call it together.
__device__ __forceinline__ bool ElectLane() {
  uint32_t elected;
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "elect.sync _|p, 0xffffffff;\n"
      "selp.u32 %0, 1, 0, p;\n"
      "}\n"
      : "=r"(elected));
  return elected != 0;
}

__device__ __forceinline__ void InitBarrier(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}

__device__ __forceinline__ void Arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(barrier) : "memory");
}

__device__ __forceinline__ void Wait(uint32_t barrier, int phase) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
      "@done bra over;\n"
      "bra again;\n"
      "over:\n"
      "}\n" ::"r"(barrier),
      "r"(phase)
      : "memory");
}

// Whether the phase has ended.
__device__ __forceinline__ bool HasEnded(uint32_t barrier, int phase) {
  uint32_t ended;
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "mbarrier.test_wait.parity.shared.b64 done, [%1], %2;\n"
      "selp.u32 %0, 1, 0, done;\n"
      "}\n"
      : "=r"(ended)
      : "r"(barrier), "r"(phase)
      : "memory");
  return ended != 0;
}

// The barrier's phase does not end before so many bytes are there.
__device__ __forceinline__ void Expect(int bytes, uint32_t barrier) {
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

// Fetches bytes to shared memory, and counts them at the barrier.
__device__ __forceinline__ void Fetch(uint32_t to, const void* from, int bytes, uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from),
               "r"(bytes), "r"(barrier)
               : "memory");
}

// The same for the first two blocks of the cluster, at the same place in both.
__device__ __forceinline__ void FetchForTwo(uint32_t to, const void* from, int bytes, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, [%3], %4;" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "h"(static_cast<uint16_t>(3))
      : "memory");
}

// The same of a box of a tensor map, from the given groups, rows and coordinates on.
__device__ __forceinline__ void FetchBox(uint32_t to, const CUtensorMap* map, int group, int row, int coordinate, uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];" ::"r"(to),
               "l"(map), "r"(group), "r"(row), "r"(coordinate), "r"(barrier)
               : "memory");
}
__device__ __forceinline__ void FetchBoxForTwo(uint32_t to, const CUtensorMap* map, int group, int row, int coordinate, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(to),
      "l"(map), "r"(group), "r"(row), "r"(coordinate), "r"(barrier), "h"(static_cast<uint16_t>(3))
      : "memory");
}

// What the thread has read and written in shared memory is over before what it has the copy engine do afterwards.
__device__ __forceinline__ void FenceCopyEngine() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Makes new barriers known to everybody, the copy engine too.
__device__ __forceinline__ void PublishBarriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// The place of this block in its cluster.
__device__ __forceinline__ int ClusterRank() {
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return static_cast<int>(rank);
}

// Waits for all threads of the cluster that have not ended; what they wrote before is there.
__device__ __forceinline__ void WaitForCluster() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// The same in two moves, for what shared memory alone must hold: barriers that have been published.
__device__ __forceinline__ void ArriveAtCluster() { asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory"); }
__device__ __forceinline__ void WaitForClusterArrivals() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }

// The place in another block's shared memory that corresponds to one of this block.
__device__ __forceinline__ uint32_t InBlock(uint32_t shared, int rank) {
  uint32_t there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(shared), "r"(rank));
  return there;
}

// Stores 16 bytes to any block of the cluster, and counts them at a barrier of that block.
__device__ __forceinline__ void SendAsync(uint32_t to, const float v[4], uint32_t barrier) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(to), "f"(v[0]), "f"(v[1]),
               "f"(v[2]), "f"(v[3]), "r"(barrier)
               : "memory");
}

// Arrives at a barrier of any block of the cluster.
__device__ __forceinline__ void ArriveInCluster(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// The same, after all that the thread has written before, and a wait at a barrier of this block for that. Much slower.
__device__ __forceinline__ void TellInCluster(uint32_t barrier) {
  asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ __forceinline__ void WaitInCluster(uint32_t barrier, int phase) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
      "@done bra over;\n"
      "bra again;\n"
      "over:\n"
      "}\n" ::"r"(barrier),
      "r"(phase)
      : "memory");
}

// A warp group gives registers back, or takes some, to have so many for each thread.
template <int kRegisters>
__device__ __forceinline__ void ShrinkRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void GrowRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_PIPELINE_CUH_
