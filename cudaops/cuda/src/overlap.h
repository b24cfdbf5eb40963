// Launches that may begin before the kernel ahead of them in the stream has ended (programmatic dependent launch, from
// compute capability 9.0 on). Such a kernel must wait for what is ahead of it before it touches anything that
// another kernel writes or reads, except for weights, which nobody writes.

#ifndef COSETQ_CUDA_OVERLAP_H_
#define COSETQ_CUDA_OVERLAP_H_

#include <cuda_runtime.h>

#include "errors.h"

namespace cosetq::cuda {

// Waits until all kernels ahead have ended and their writes are visible.
__device__ __forceinline__ void WaitForKernelsAhead() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the kernel behind begin.
__device__ __forceinline__ void LetNextKernelBegin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

template <typename... Parameters, typename... Arguments>
void LaunchOverlapped(const char* what, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared,
                      unsigned cluster, bool overlap, cudaStream_t stream, Arguments... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  cudaLaunchAttribute attributes[2] = {};
  config.attrs = attributes;
  if (overlap) {
    attributes[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[config.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (cluster > 1) {
    attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
    attributes[config.numAttrs].val.clusterDim.x = 1;
    attributes[config.numAttrs].val.clusterDim.y = cluster;
    attributes[config.numAttrs++].val.clusterDim.z = 1;
  }
  Check(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...), what);
}

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_OVERLAP_H_
