#include <string>

#include "cosetq/cosetq.h"
#include "cpu/counters.h"
#include "cpu/dispatch.h"

extern "C" int cosetq_op_version() { return cosetq::schema::kOpVersion; }

extern "C" const char* cosetq_interface() { return cosetq::schema::kInterface; }

extern "C" const char* cosetq_isa() { return cosetq::ActiveKernels().name; }

extern "C" int cosetq_set_isa(const char* name) {
  std::string error;
  return cosetq::SelectIsa(name == nullptr ? "" : name, &error) ? 0 : -1;
}

extern "C" int64_t cosetq_kernel_calls(const char* name) { return cosetq::CallCount(name); }
