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

// Launches a kernel in clusters of so many blocks, 1 for none.
template <typename... Parameters, typename... Arguments>
void LaunchClusters(const char* what, void (*kernel)(Parameters...), dim3 grid, unsigned threads, size_t shared,
                    unsigned cluster, bool overlap, cudaStream_t stream, Arguments... arguments) {
  cudaLaunchAttribute attributes[2] = {};
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  config.attrs = attributes;
  if (overlap) {
    cudaLaunchAttribute& attribute = attributes[config.numAttrs++];
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
  }
  if (cluster > 1) {
    cudaLaunchAttribute& attribute = attributes[config.numAttrs++];
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = cluster;
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  }
  Check(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...), what);
}

template <typename... Parameters, typename... Arguments>
void LaunchOverlapped(const char* what, void (*kernel)(Parameters...), dim3 grid, unsigned threads, size_t shared,
                      bool overlap, cudaStream_t stream, Arguments... arguments) {
  LaunchClusters(what, kernel, grid, threads, shared, 1, overlap, stream, arguments...);
}

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_OVERLAP_H_
