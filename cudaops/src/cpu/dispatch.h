// The one place where a set of kernels is chosen.

#ifndef COSETQ_CPU_DISPATCH_H_
#define COSETQ_CPU_DISPATCH_H_

#include <string>

#include "kernels.h"

namespace cosetq {

// The kernels in use: the best this processor has, unless the environment variable COSETQ_ISA or
// SelectIsa said otherwise.
const Kernels& ActiveKernels();

// Chooses an instruction set by name; an empty name chooses the best. Fails on an unknown name and
// on one that this processor or build lacks.
bool SelectIsa(const std::string& name, std::string* error);

// Applies COSETQ_ISA once. Fails as SelectIsa does, every time it is called.
bool SelectIsaFromEnvironment(std::string* error);

// Names of the instruction sets that can be selected here, slowest first.
const char* const* AvailableIsas(int* count);

}  // namespace cosetq

#endif  // COSETQ_CPU_DISPATCH_H_
