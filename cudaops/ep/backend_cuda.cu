// The device: GPU 0 of the process, which CUDA_VISIBLE_DEVICES chooses.

#include <cuda_runtime.h>

#include <new>

#include "backend.h"
#include "cosetq/cuda.h"

namespace cosetq::ep::backend {

const char* const kCustomOpProvider = "CUDAExecutionProvider";

namespace {

void Check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // an error that is not sticky must not come back at the next call
  if (error == cudaErrorMemoryAllocation) throw std::bad_alloc();
  throw DeviceError(std::string(what) + ": " + cudaGetErrorString(error));
}

cudaStream_t S(void* stream) { return static_cast<cudaStream_t>(stream); }
cudaEvent_t E(void* event) { return static_cast<cudaEvent_t>(event); }

constexpr int kMinMajor = 8;  // the oldest architecture that the kernels are built for

}  // namespace

std::string FindDevice(std::string* problem) {
  if (cosetq_cuda_device_count() == 0) {
    *problem = cosetq_cuda_error();
    return "";
  }
  cudaDeviceProp properties;
  if (const cudaError_t error = cudaGetDeviceProperties(&properties, 0); error != cudaSuccess) {
    cudaGetLastError();
    *problem = cudaGetErrorString(error);
    return "";
  }
  if (properties.major < kMinMajor) {
    *problem = std::string(properties.name) + " has compute capability " +
               std::to_string(properties.major) + "." + std::to_string(properties.minor) +
               ", and 8.0 or later is needed";
    return "";
  }
  return properties.name;
}

OnDevice::OnDevice() noexcept {
  if (cudaGetDevice(&before_) != cudaSuccess) {
    cudaGetLastError();  // no device at all, which whoever wants one is told
    before_ = 0;
  }
  if (before_ != 0) cudaSetDevice(0);
}
OnDevice::~OnDevice() {
  if (before_ != 0) cudaSetDevice(before_);
}

void* CreateStream() {
  cudaStream_t stream;
  Check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "make a stream");
  return stream;
}
void DestroyStream(void* stream) { cudaStreamDestroy(S(stream)); }
void Synchronize(void* stream) { Check(cudaStreamSynchronize(S(stream)), "wait for the GPU"); }

void* CreateEvent() {
  cudaEvent_t event;
  Check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "make an event");
  return event;
}
void DestroyEvent(void* event) { cudaEventDestroy(E(event)); }
void Record(void* event, void* stream) { Check(cudaEventRecord(E(event), S(stream)), "record"); }
void WaitOnStream(void* event, void* stream) {
  Check(cudaStreamWaitEvent(S(stream), E(event), 0), "wait for another stream");
}
void WaitOnHost(void* event) { Check(cudaEventSynchronize(E(event)), "wait for an event"); }

const bool kRecords = true;

void BeginRecording(void* stream) {
  // Memory may be allocated meanwhile, by this thread and others.
  Check(cudaStreamBeginCapture(S(stream), cudaStreamCaptureModeRelaxed), "record work");
}

void* EndRecording(void* stream) {
  cudaGraph_t graph = nullptr;
  Check(cudaStreamEndCapture(S(stream), &graph), "end a recording");
  cudaGraphExec_t recording = nullptr;
  const cudaError_t error = cudaGraphInstantiate(&recording, graph, 0);
  cudaGraphDestroy(graph);
  Check(error, "make ready a recording");
  return recording;
}

void Repeat(void* recording, void* stream) {
  Check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(recording), S(stream)), "repeat recorded work");
}

void DestroyRecording(void* recording) { cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(recording)); }

size_t FreeMemory() {
  size_t free = 0, total = 0;
  if (cudaMemGetInfo(&free, &total) == cudaSuccess) return free;
  cudaGetLastError();
  return 0;
}

void* Allocate(size_t bytes) {
  void* data = nullptr;
  Check(cudaMalloc(&data, bytes), "allocate GPU memory");
  return data;
}
void Free(void* data) { cudaFree(data); }

void CopyToDevice(void* to, const void* from, size_t bytes, void* stream) {
  Check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, S(stream)), "copy to the GPU");
}
void CopyToHost(void* to, const void* from, size_t bytes, void* stream) {
  Check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, S(stream)), "copy from the GPU");
}
void CopyOnDevice(void* to, const void* from, size_t bytes, void* stream) {
  Check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, S(stream)), "copy on the GPU");
}

}  // namespace cosetq::ep::backend
