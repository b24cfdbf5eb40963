# Builds the native library and its tests with make and g++ alone. Run from anywhere:
#
#   make -f cudaops/build.mk            build/ops/libcosetq.so
#   make -f cudaops/build.mk check      the native tests on every instruction set of this machine
#   make -f cudaops/build.mk asan       the same under the address and undefined-behaviour sanitizers
#   make -f cudaops/build.mk bench      times of the kernels alone

here := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))
out ?= $(here)/../build/ops
CXX ?= g++
GO ?= go
ort_include ?= $(shell cd $(here) && $(GO) list -m -f '{{.Dir}}' github.com/yalue/onnxruntime_go)

flags := -std=c++17 -O3 -fPIC -fvisibility=hidden -ffp-contract=off -Wall -Wextra -I$(here)/include -I$(here)/src \
  -ffile-prefix-map=$(here)=cudaops
link := -shared -static-libstdc++ -static-libgcc -s -Wl,--gc-sections -Wl,--version-script=$(here)/src/exports.map -Wl,--no-undefined -Wl,-z,relro,-z,now -pthread

machine := $(shell $(CXX) -dumpmachine)
kernels := weight form rotation activations linear linear_decoded linear_lookup linear_panel dispatch counters portable observe observe_registry encode portable_encode
ifneq (,$(findstring x86_64,$(machine)))
kernels += avx2 avx512 avx512_lookup avx512_lookup8 avx512_panel avx2_encode avx512_encode
endif
# GCC 12 takes the deliberately undefined operands inside its own intrinsics for a mistake.
isa_avx2 := -mavx2 -mfma -mf16c -Wno-maybe-uninitialized
isa_avx512 := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vbmi -mavx512vnni -mfma -mf16c \
  -mprefer-vector-width=512 -Wno-maybe-uninitialized -Wno-uninitialized
ort_parts := register linear_create linear_compute introspect observe_op observe_export encode_export

objects = $(addprefix $1/cpu/,$(addsuffix .o,$(kernels)))

.PHONY: all check asan bench clean
all: $(out)/libcosetq.so

release := $(out)/release
sanitized := $(out)/asan
sanitize := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer

$(release)/cpu/%.o: $(here)/src/cpu/%.cc
	@mkdir -p $(@D)
	$(CXX) $(flags) $(isa_$(firstword $(subst _, ,$*))) -MMD -MP -c $< -o $@

$(release)/ort/%.o: $(here)/src/%.cc
	@mkdir -p $(@D)
	$(CXX) $(flags) -isystem $(ort_include) -MMD -MP -c $< -o $@

$(release)/test/%.o: $(here)/test/%.cc
	@mkdir -p $(@D)
	$(CXX) $(flags) -MMD -MP -c $< -o $@

$(release)/bench/%.o: $(here)/bench/%.cc
	@mkdir -p $(@D)
	$(CXX) $(flags) -I$(here)/test -MMD -MP -c $< -o $@

$(sanitized)/cpu/%.o: $(here)/src/cpu/%.cc
	@mkdir -p $(@D)
	$(CXX) $(flags) $(isa_$(firstword $(subst _, ,$*))) $(sanitize) -MMD -MP -c $< -o $@

$(sanitized)/test/%.o: $(here)/test/%.cc
	@mkdir -p $(@D)
	$(CXX) $(flags) $(sanitize) -MMD -MP -c $< -o $@

$(out)/libcosetq.so: $(here)/src/exports.map $(call objects,$(release)) $(addprefix $(release)/ort/,$(addsuffix .o,$(ort_parts)))
	$(CXX) $(link) $(filter %.o,$^) -o $@.new
	mv $@.new $@

tests := $(basename $(notdir $(wildcard $(here)/test/*.cc)))
$(release)/cosetq_test: $(call objects,$(release)) $(addprefix $(release)/test/,$(addsuffix .o,$(tests)))
	$(CXX) $^ -pthread -o $@

$(sanitized)/cosetq_test: $(call objects,$(sanitized)) $(addprefix $(sanitized)/test/,$(addsuffix .o,$(tests)))
	$(CXX) $(sanitize) $^ -pthread -o $@

$(release)/cosetq_bench: $(call objects,$(release)) $(release)/bench/bench.o $(release)/test/sample.o
	$(CXX) $^ -pthread -o $@

# A weak symbol in a file built for one instruction set could replace everyone's copy of an inline function.
check: $(release)/cosetq_test
	@! nm $(filter %/avx2.o %/avx512.o %/avx512_lookup.o %/avx512_lookup8.o %/avx512_panel.o %/avx2_encode.o %/avx512_encode.o,$(call objects,$(release))) | grep ' [WwVu] ' || \
	  { echo "inline functions leak out of the files of one instruction set"; exit 1; }
	$(release)/cosetq_test

asan: $(sanitized)/cosetq_test
	$(sanitized)/cosetq_test --short

bench: $(release)/cosetq_bench
	$(release)/cosetq_bench

clean:
	rm -rf $(out)

-include $(wildcard $(release)/*/*.d $(sanitized)/*/*.d)
