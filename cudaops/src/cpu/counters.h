// How often each kernel path ran, so that a test can tell when one silently gives way to another.

#ifndef COSETQ_CPU_COUNTERS_H_
#define COSETQ_CPU_COUNTERS_H_

#include <cstdint>

namespace cosetq {

enum class Path {
  kGeneral,  // decode to float by the general kernel, multiply
  kD4,       // decode to float by table look-up in registers, multiply
  kLookup16,  // value look-up tables of 16 bits
  kLookup8,   // of 8 bits
  kInt16,    // decode to bytes, activations as 16-bit integers
  kInt8,     // decode to bytes, activations as 8-bit integers
  kGather,   // rows taken out of a weight
};
constexpr int kPathCount = 7;

const char* PathName(Path path);
void CountCall(const char* isa, Path path);

// Calls of "isa.path" since the library was loaded, such as "avx512.lookup"; -1 for a name that
// does not exist.
int64_t CallCount(const char* name);

}  // namespace cosetq

#endif  // COSETQ_CPU_COUNTERS_H_
