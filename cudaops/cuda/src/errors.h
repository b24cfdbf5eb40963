// Errors of CUDA and of callers as exceptions inside the library; the C interface turns them into messages.

#ifndef COSETQ_CUDA_ERRORS_H_
#define COSETQ_CUDA_ERRORS_H_

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace cosetq::cuda {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

inline void Check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // an error that is reported must not fail the next call
  throw Error(std::string(what) + ": " + cudaGetErrorString(status));
}

inline void CheckLaunch(const char* kernel) { Check(cudaGetLastError(), kernel); }

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_ERRORS_H_
