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
constexpr int kTypeFloat = 0, kTypeHalf = 2;
constexpr int kComputeFloat = 68, kComputeTf32 = 77;
constexpr int kDefaultAlgorithm = -1;

struct Functions {
  int (*create)(void** handle) = nullptr;
  int (*set_stream)(void* handle, cudaStream_t stream) = nullptr;
  int (*set_workspace)(void* handle, void* workspace, size_t bytes) = nullptr;
  int (*gemm)(void* handle, int op_a, int op_b, int m, int n, int k, const void* alpha, const void* a, int a_type, int lda,
              long long a_batch, const void* b, int b_type, int ldb, long long b_batch, const void* beta, void* c, int c_type, int ldc,
              long long c_batch, int count, int compute, int algorithm) = nullptr;
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
                Find(library, "cublasSetWorkspace_v2", &f.set_workspace) && Find(library, "cublasGemmStridedBatchedEx", &f.gemm);
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

void Multiply(const Products& p, void* workspace, cudaStream_t stream) {
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  void* handle = Handle();
  CheckCublas(Cublas().set_stream(handle, stream), "choose a stream");
  CheckCublas(Cublas().set_workspace(handle, workspace, kCublasWorkspace), "give a workspace");
  const int type = p.half ? kTypeHalf : kTypeFloat, compute = p.ten_bits && !p.half ? kComputeTf32 : kComputeFloat;
  const float beta = p.add ? 1 : 0;
  const auto way = [](const Factor& f) { return f.transposed ? kTransposed : kNotTransposed; };
  // Its matrices stand column after column, so it computes C^T = B^T * A^T.
  CheckCublas(Cublas().gemm(handle, way(p.b), way(p.a), static_cast<int>(p.n), static_cast<int>(p.m), static_cast<int>(p.k),
                            &p.alpha, p.b.data, type, static_cast<int>(p.b.ld), p.b.batch, p.a.data, type, static_cast<int>(p.a.ld), p.a.batch, &beta,
                            p.c, type, static_cast<int>(p.ldc), p.c_batch, static_cast<int>(p.count), compute, kDefaultAlgorithm),
              "multiply");
}

}  // namespace cosetq::cuda
