#include "counters.h"

#include <atomic>
#include <cstring>
#include <string>

namespace cosetq {
namespace {

constexpr const char* kIsas[] = {"portable", "avx2", "avxvnni", "avx512", "amx"};
constexpr int kIsaCount = sizeof kIsas / sizeof kIsas[0];
constexpr const char* kPaths[kPathCount] = {"general", "d4", "lookup", "lookup8", "int16", "int8",
                                             "gather"};
std::atomic<int64_t> calls[kIsaCount][kPathCount];

}  // namespace

const char* PathName(Path path) { return kPaths[static_cast<int>(path)]; }

void CountCall(const char* isa, Path path) {
  for (int i = 0; i < kIsaCount; ++i) {
    if (std::strcmp(isa, kIsas[i]) == 0) {
      calls[i][static_cast<int>(path)].fetch_add(1, std::memory_order_relaxed);
    }
  }
}

int64_t CallCount(const char* name) {
  if (name == nullptr) return -1;
  for (int i = 0; i < kIsaCount; ++i) {
    for (int p = 0; p < kPathCount; ++p) {
      if (name == std::string(kIsas[i]) + "." + kPaths[p])
        return calls[i][p].load(std::memory_order_relaxed);
    }
  }
  return -1;
}

}  // namespace cosetq
