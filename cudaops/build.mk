# Builds the native library and its tests with make and g++ alone. Run from anywhere:
#
#   make -f cudaops/build.mk            build/ops/libcosetq.so
#   make -f cudaops/build.mk check      the native tests on every instruction set of this machine
#   make -f cudaops/build.mk asan       the same, and random bytes, under the address and undefined-behaviour sanitizers
#   make -f cudaops/build.mk fuzz       what takes foreign bytes, with libFuzzer: needs clang++
#   make -f cudaops/build.mk provider   build/ops/libcosetq_ep_host.so, the execution provider of the GPU library on
#                                       a device that is the host: its tests need no GPU
#   make -f cudaops/build.mk bench      times of the kernels alone
#
# V=1 shows the commands.

here := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))
out ?= $(here)/../build/ops
include $(here)/moved.mk
include $(here)/quiet.mk
CXX ?= g++
GO ?= go
ort_include ?= $(shell cd $(here) && $(GO) list -m -f '{{.Dir}}' github.com/yalue/onnxruntime_go)

flags := -std=c++17 -O3 -fPIC -fvisibility=hidden -ffp-contract=off -Wall -Wextra -Werror=switch -I$(here)/include -I$(here)/src \
  -ffile-prefix-map=$(here)=cudaops
link := -shared -static-libstdc++ -static-libgcc -s -Wl,--gc-sections -Wl,--version-script=$(here)/src/exports.map -Wl,--no-undefined -Wl,-z,relro,-z,now -pthread

machine := $(shell $(CXX) -dumpmachine)
kernels := weight form rotation activations linear linear_decoded linear_lookup linear_panel dispatch counters gather portable observe observe_registry observe_staging encode encode_create portable_encode
ifneq (,$(findstring x86_64,$(machine)))
kernels += avx2 avx2_lookup8 avx2_lookup16 avx2_panel avxvnni_panel avx512 avx512_lookup avx512_lookup8 avx512_decode avx512_panel avx512_nibbles amx_panel avx2_encode avx512_encode
endif
# GCC 12 takes the deliberately undefined operands inside its own intrinsics for a mistake.
isa_avx2 := -mavx2 -mfma -mf16c -Wno-maybe-uninitialized
isa_avxvnni := $(isa_avx2) -mavxvnni
isa_avx512 := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vbmi -mavx512vnni -mgfni -mfma -mf16c \
  -mprefer-vector-width=512 -Wno-maybe-uninitialized -Wno-uninitialized
isa_amx := $(isa_avx512) -mamx-tile -mamx-int8
ort_parts := register infer_shape linear_op linear_spec linear_create linear_compute gather_op gather_compute read_weight introspect observe_op observe_export encode_export product_export

objects = $(addprefix $1/cpu/,$(addsuffix .o,$(kernels)))

.PHONY: all provider check asan fuzz bench clean
all: $(out)/libcosetq.so
provider: $(out)/libcosetq_ep_host.so

release := $(out)/release
sanitized := $(out)/asan
# Reports name lines; more for a debugger takes the compiler a fourth of its time.
sanitize := -O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer

$(release)/cpu/%.o: $(here)/src/cpu/%.cc
	@mkdir -p $(@D)
	$(compiling)
	$(quiet)$(CXX) $(flags) $(isa_$(firstword $(subst _, ,$*))) -MMD -MP -c $< -o $@

$(release)/ort/%.o: $(here)/src/%.cc
	@mkdir -p $(@D)
	$(compiling)
	$(quiet)$(CXX) $(flags) -isystem $(ort_include) -MMD -MP -c $< -o $@

$(release)/test/%.o: $(here)/test/%.cc
	@mkdir -p $(@D)
	$(compiling)
	$(quiet)$(CXX) $(flags) -MMD -MP -c $< -o $@

$(release)/bench/%.o: $(here)/bench/%.cc
	@mkdir -p $(@D)
	$(compiling)
	$(quiet)$(CXX) $(flags) -I$(here)/test -MMD -MP -c $< -o $@

# Checks by call take more than twice the time of those in place, which are minutes of work for the compiler where much is unrolled.
unrolled := amx_panel avx512 avx512_decode avx512_nibbles
by_call := --param asan-instrumentation-with-call-threshold=0

$(sanitized)/cpu/%.o: $(here)/src/cpu/%.cc
	@mkdir -p $(@D)
	$(compiling)
	$(quiet)$(CXX) $(flags) $(isa_$(firstword $(subst _, ,$*))) $(sanitize) $(if $(filter $*,$(unrolled)),$(by_call)) -MMD -MP -c $< -o $@

$(sanitized)/test/%.o: $(here)/test/%.cc
	@mkdir -p $(@D)
	$(compiling)
	$(quiet)$(CXX) $(flags) $(sanitize) -MMD -MP -c $< -o $@

# All of the provider but its GPU; cudaops/cuda/build.mk builds the rest. Its speed is no concern here.
provider := $(filter-out backend_cuda attention_groups,$(basename $(notdir $(wildcard $(here)/ep/*.cc $(here)/ep/*.cu))))

$(release)/ep/%.o: $(here)/ep/%.cc
	@mkdir -p $(@D)
	$(compiling)
	$(quiet)$(CXX) $(flags) -O1 -isystem $(ort_include) -MMD -MP -c $< -o $@

$(release)/ep/%.o: $(here)/ep/%.cu
	@mkdir -p $(@D)
	$(compiling)
	$(quiet)$(CXX) $(flags) -O1 -isystem $(ort_include) -MMD -MP -x c++ -c $< -o $@

$(out)/libcosetq_ep_host.so: $(call objects,$(release)) $(provider:%=$(release)/ep/%.o) $(addprefix $(release)/ort/,gather_op.o linear_op.o linear_spec.o infer_shape.o read_weight.o)
	$(linking)
	$(quiet)$(CXX) -shared -Wl,--no-undefined -Wl,-z,relro,-z,now $^ -pthread -o $@.new
	$(quiet)mv $@.new $@

$(out)/libcosetq.so: $(here)/src/exports.map $(call objects,$(release)) $(addprefix $(release)/ort/,$(addsuffix .o,$(ort_parts)))
	$(linking)
	$(quiet)$(CXX) $(link) $(filter %.o,$^) -o $@.new
	$(quiet)mv $@.new $@

# What takes foreign bytes, as libFuzzer wants it: fuzz/<name>_fuzz.cc.
fuzzers := weight encoder observe
random_seconds ?= 4

$(sanitized)/fuzz/%.o: $(here)/fuzz/%.cc
	@mkdir -p $(@D)
	$(compiling)
	$(quiet)$(CXX) $(flags) $(sanitize) -I$(here)/test -MMD -MP -c $< -o $@

$(addprefix $(sanitized)/,$(fuzzers)): $(sanitized)/%: $(sanitized)/fuzz/%_fuzz.o $(sanitized)/fuzz/standalone.o $(call objects,$(sanitized)) $(sanitized)/test/sample.o
	$(linking)
	$(quiet)$(CXX) $(sanitize) $^ -pthread -o $@

tests := $(basename $(notdir $(wildcard $(here)/test/*.cc)))
$(release)/cosetq_test: $(call objects,$(release)) $(addprefix $(release)/test/,$(addsuffix .o,$(tests)))
	$(linking)
	$(quiet)$(CXX) $^ -pthread -o $@

$(sanitized)/cosetq_test: $(call objects,$(sanitized)) $(addprefix $(sanitized)/test/,$(addsuffix .o,$(tests)))
	$(linking)
	$(quiet)$(CXX) $(sanitize) $^ -pthread -o $@

$(release)/cosetq_bench: $(call objects,$(release)) $(release)/bench/bench.o $(release)/test/sample.o
	$(linking)
	$(quiet)$(CXX) $^ -pthread -o $@

# A weak symbol in a file built for one instruction set could replace everyone's copy of an inline function.
check: $(release)/cosetq_test
	@! nm $(addprefix $(release)/cpu/,$(addsuffix .o,$(filter avx% amx%,$(kernels)))) | grep ' [WwVu] ' || \
	  { echo "inline functions leak out of the files of one instruction set"; exit 1; }
	$(release)/cosetq_test

asan: $(sanitized)/cosetq_test $(addprefix $(sanitized)/,$(fuzzers))
	$(sanitized)/cosetq_test --short
	@for target in $(fuzzers); do echo "-- $$target"; $(sanitized)/$$target -seconds=$(random_seconds) || exit 1; done

# The same targets with libFuzzer, which comes with clang++.
fuzz_seconds ?= 10
fuzz_cxx ?= clang++
fuzzed := $(out)/fuzz
fuzz_flags := $(flags) -Wno-unknown-warning-option $(sanitize) -O2 -fsanitize=fuzzer-no-link -I$(here)/test

$(fuzzed)/cpu/%.o: $(here)/src/cpu/%.cc
	@mkdir -p $(@D)
	$(compiling)
	$(quiet)$(fuzz_cxx) $(fuzz_flags) $(isa_$(firstword $(subst _, ,$*))) -MMD -MP -c $< -o $@

$(fuzzed)/fuzz/%.o: $(here)/fuzz/%.cc
	@mkdir -p $(@D)
	$(compiling)
	$(quiet)$(fuzz_cxx) $(fuzz_flags) -MMD -MP -c $< -o $@

$(fuzzed)/test/%.o: $(here)/test/%.cc
	@mkdir -p $(@D)
	$(compiling)
	$(quiet)$(fuzz_cxx) $(fuzz_flags) -MMD -MP -c $< -o $@

$(addprefix $(fuzzed)/,$(fuzzers)): $(fuzzed)/%: $(fuzzed)/fuzz/%_fuzz.o $(call objects,$(fuzzed)) $(fuzzed)/test/sample.o
	$(linking)
	$(quiet)$(fuzz_cxx) $(sanitize) -fsanitize=fuzzer $^ -pthread -o $@

fuzz: $(addprefix $(fuzzed)/,$(fuzzers))
	@for target in $(fuzzers); do echo "-- $$target"; mkdir -p $(fuzzed)/corpus/$$target; \
	  $(fuzzed)/$$target -max_total_time=$(fuzz_seconds) -max_len=4096 -len_control=0 -timeout=10 -verbosity=0 -print_funcs=0 \
	    -print_final_stats=1 -artifact_prefix=$(fuzzed)/$$target- $(fuzzed)/corpus/$$target || exit 1; done

$(release)/cosetq_product_bench: $(call objects,$(release)) $(release)/bench/product.o
	$(linking)
	$(quiet)$(CXX) $^ -pthread -o $@

bench: $(release)/cosetq_bench $(release)/cosetq_product_bench
	$(release)/cosetq_bench
	$(release)/cosetq_product_bench

clean:
	rm -rf $(out)

-include $(wildcard $(release)/*/*.d $(sanitized)/*/*.d $(fuzzed)/*/*.d)
