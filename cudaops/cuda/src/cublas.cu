#include "cublas.h"

#include <dlfcn.h>

#include <array>
#include <mutex>
#include <string>

#include "errors.h"

namespace cosetq::cuda {
namespace {

// As cublas_v2.h and library_types.h number them.
constexpr int kNotTransposed = 0, kTransposed = 1;
constexpr int kTypeFloat = 0, kTypeHalf = 2, kTypeInt8 = 3, kTypeInt32 = 10;
constexpr int kComputeFloat = 68, kComputeInt = 72, kComputeTf32 = 77;
constexpr int kDefaultAlgorithm = -1;

struct Functions {
  int (*create)(void** handle) = nullptr;
  int (*set_stream)(void* handle, cudaStream_t stream) = nullptr;
  int (*set_workspace)(void* handle, void* workspace, size_t bytes) = nullptr;
  int (*gemm)(void* handle, int op_a, int op_b, int m, int n, int k, const void* alpha, const void* a, int a_type, int lda,
              const void* b, int b_type, int ldb, const void* beta, void* c, int c_type, int ldc, int compute,
              int algorithm) = nullptr;
  bool found = false;
};

template <typename F>
bool Find(void* library, const char* name, F* function) {
  *function = reinterpret_cast<F>(dlsym(library, name));
  return *function != nullptr;
}

const Functions& Cublas() {
  static const Functions functions = [] {
    Functions f;
    for (const char* name : {"libcublas.so.13", "libcublas.so.12", "libcublas.so"}) {
      void* library = dlopen(name, RTLD_NOW);
      if (library == nullptr) continue;
      f.found = Find(library, "cublasCreate_v2", &f.create) && Find(library, "cublasSetStream_v2", &f.set_stream) &&
                Find(library, "cublasSetWorkspace_v2", &f.set_workspace) && Find(library, "cublasGemmEx", &f.gemm);
      if (f.found) break;
    }
    return f;
  }();
  return functions;
}

void CheckCublas(int status, const char* what) {
  if (status != 0) throw Error(std::string(what) + ": cuBLAS status " + std::to_string(status));
}

// A handle per device; used by one thread at a time.
void* Handle() {
  static std::array<void*, 64> handles{};
  int device = 0;
  Check(cudaGetDevice(&device), "find the current device");
  void*& handle = handles.at(static_cast<size_t>(device));
  if (handle == nullptr) CheckCublas(Cublas().create(&handle), "start cuBLAS");
  return handle;
}

}  // namespace

bool HasCublas() { return Cublas().found; }

void Multiply(Numbers numbers, int64_t m, int64_t n, int64_t k, const void* a, const void* b, void* c, int64_t ldc, bool add,
              void* workspace, cudaStream_t stream) {
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  void* handle = Handle();
  CheckCublas(Cublas().set_stream(handle, stream), "choose a stream");
  CheckCublas(Cublas().set_workspace(handle, workspace, kCublasWorkspace), "give a workspace");
  const int type = numbers == Numbers::kHalf ? kTypeHalf : numbers == Numbers::kFloat ? kTypeFloat : kTypeInt8;
  const int out = numbers == Numbers::kInt8 ? kTypeInt32 : type;
  const int compute = numbers == Numbers::kHalf ? kComputeFloat : numbers == Numbers::kFloat ? kComputeTf32 : kComputeInt;
  const float one = 1, zero = 0, beta = add ? one : zero;
  const int32_t int_one = 1, int_beta = add ? 1 : 0;
  const bool ints = numbers == Numbers::kInt8;
  const auto ld = static_cast<int>(k);
  // Its matrices stand column after column, so it computes C^T = B * A^T.
  CheckCublas(Cublas().gemm(handle, kTransposed, kNotTransposed, static_cast<int>(n), static_cast<int>(m),
                            static_cast<int>(k), ints ? static_cast<const void*>(&int_one) : &one, b, type, ld, a, type, ld,
                            ints ? static_cast<const void*>(&int_beta) : &beta, c, out, static_cast<int>(ldc), compute,
                            kDefaultAlgorithm),
              "multiply");
}

}  // namespace cosetq::cuda
