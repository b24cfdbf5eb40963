#include "dispatch.h"

#include <atomic>
#include <cstdlib>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace cosetq {
namespace {

#if defined(__x86_64__)
// Clang 14 does not know this feature by name.
bool HasF16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

bool HasAvx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && HasF16c();
}

bool HasAvxVnni() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return HasAvx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & 1u << 4) != 0;
}

bool HasAvx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni") &&
         __builtin_cpu_supports("gfni");
}

// Linux lends a process the tile registers only when it asks for them, once.
bool HasAmx() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr unsigned kTileBits = 1u << 24 | 1u << 25;  // AMX-TILE, AMX-INT8
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  unsigned a = 0, b = 0, c = 0, d = 0;
  return HasAvx512() && __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 &&
         (d & kTileBits) == kTileBits && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

struct Candidate {
  const Kernels* kernels;
  bool (*supported)();
};

// Slowest first.
const Candidate kCandidates[] = {
    {&kPortableKernels, [] { return true; }},
#if defined(__x86_64__)
    {&kAvx2Kernels, HasAvx2},
    {&kAvxVnniKernels, HasAvxVnni},
    {&kAvx512Kernels, HasAvx512},
    {&kAmxKernels, HasAmx},
#endif
};

std::atomic<const Kernels*> active{nullptr};

const Kernels* Best() {
  const Kernels* best = nullptr;
  for (const Candidate& c : kCandidates) {
    if (c.supported()) best = c.kernels;
  }
  return best;
}

}  // namespace

const Kernels& ActiveKernels() {
  const Kernels* kernels = active.load(std::memory_order_acquire);
  if (kernels == nullptr) {
    kernels = Best();
    active.store(kernels, std::memory_order_release);
  }
  return *kernels;
}

bool SelectIsa(const std::string& name, std::string* error) {
  if (name.empty()) {
    active.store(Best(), std::memory_order_release);
    return true;
  }
  std::string known;
  for (const Candidate& c : kCandidates) {
    known += std::string(known.empty() ? "" : ", ") + c.kernels->name;
    if (name != c.kernels->name) continue;
    if (!c.supported()) {
      *error = "this processor lacks the instruction set " + name;
      return false;
    }
    active.store(c.kernels, std::memory_order_release);
    return true;
  }
  *error = "unknown instruction set " + name + ", have " + known;
  return false;
}

bool SelectIsaFromEnvironment(std::string* error) {
  const char* name = std::getenv(schema::kEnvIsa);
  if (name == nullptr || *name == 0) return true;
  if (SelectIsa(name, error)) return true;
  *error = std::string(schema::kEnvIsa) + ": " + *error;
  return false;
}

const char* const* AvailableIsas(int* count) {
  static const char* names[sizeof kCandidates / sizeof kCandidates[0]];
  int n = 0;
  for (const Candidate& c : kCandidates) {
    if (c.supported()) names[n++] = c.kernels->name;
  }
  *count = n;
  return names;
}

}  // namespace cosetq
