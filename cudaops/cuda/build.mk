# Builds the GPU kernels with make, g++ and NVIDIA's nvcc. No GPU is needed to build. Run from anywhere:
#
#   make -f cudaops/cuda/build.mk             build/ops/libcosetq_cuda.so and its tests
#   make -f cudaops/cuda/build.mk bench       times: the workbench's variants, and the table beside cuBLAS (needs PyTorch)
#   make -f cudaops/cuda/build.mk check       the tests, which say so and pass where there is no GPU, and a look at the machine code
#   make -f cudaops/cuda/build.mk sanitize    the same under compute-sanitizer (of the CUDA toolkit)
#
# quick=yes: does all compile, for the same machines, and link? Nothing is made fast but the kernels whose machine code is looked at, in
# half the time. For where no GPU could run it; it lies apart, in build/ops/quick, so that nobody ships it.
# Of the workbench's products ptxas then says that they are serialized, and so they are.
#
# NVCC is the compiler: that of `make setup-cuda` if it is there, else the one on the path.

here := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))
ops := $(here)/..
out ?= $(ops)/../build/ops$(if $(quick),/quick)
include $(ops)/moved.mk
include $(ops)/quiet.mk
CXX ?= g++
GO ?= go
fetched := $(ops)/../build/cuda/nvidia/cu13
NVCC ?= $(if $(wildcard $(fetched)/bin/nvcc),$(fetched)/bin/nvcc,nvcc)
SANITIZER ?= compute-sanitizer

# Machine code for Ampere and for Hopper, and for whatever comes the portable form of the first. Most files are translated once
# for both. Those that use what only Hopper has, where they run on Hopper, are translated for each; others run nowhere else.
both := -gencode arch=compute_80,code=[sm_80,sm_90,compute_80]
ampere := -gencode arch=compute_80,code=[sm_80,compute_80]
hopper := -gencode arch=compute_90a,code=sm_90a
overlapping := small small_lanes small_lanes_floats columns decode one_sided rotate
hopper_alone := middle columns_many wide wide_halves wide_bytes attention_groups
target = $(if $(filter $*,$(hopper_alone)),$(hopper),$(if $(filter $*,$(overlapping)),$(ampere) $(hopper),$(both)))
host := -fPIC,-fvisibility=hidden,-Wall,-ffp-contract=off,-ffile-prefix-map=$(ops)=cudaops
optimized = $(if $(quick),$(if $(filter $*,$(hopper_alone)),-O3,-O0 --Ofast-compile=max),-O3)
flags := -std=c++17 --expt-relaxed-constexpr -I$(ops)/include -I$(ops)/src -I$(here)/src -ccbin $(CXX) \
  -Xcompiler $(host)
# nvcc of the packages looks for its libraries where the toolkit's installer would have put them.
libraries := $(if $(findstring $(fetched),$(NVCC)),-L$(fetched)/lib)
link := $(flags) $(both) -cudart static -ldl $(libraries) -Xlinker --gc-sections

# Those that take minutes begin first, so that no core waits for them at the end.
slow := small small_lanes small_lanes_floats wide_bytes columns_many wide_halves
parts := $(slow) $(filter-out $(slow),$(basename $(notdir $(wildcard $(here)/src/*.cu))))
cpu_parts := weight form rotation encode_create
objects := $(out)/cuda
library_objects := $(parts:%=$(objects)/%.o) $(cpu_parts:%=$(objects)/cpu/%.o)

.PHONY: all workbench check products sanitize bench clean
all: $(out)/libcosetq_cuda.so $(objects)/cosetq_cuda_test
# The variants that are timed; workbench_for=hopper translates them for Hopper alone, in half the time.
workbench: $(objects)/workbench

# The assembler says no more than "info" when it has the products of a warp group wait for each other, which makes a kernel slower.
# And a kernel that is to wait for the one ahead of it (overlap.h) does not, without a word, in code that was translated for Ampere.
not_serialized = cat $@.said >&2; if grep -q 'instructions are serialized' $@.said; then rm $@; exit 1; fi
$(objects)/%.o: $(here)/src/%.cu
	@mkdir -p $(@D)
	$(compiling)
	$(quiet)$(NVCC) $(flags) $(optimized) $(target) $(flags_$*) -MMD -MP -c $< -o $@ 2>$@.said || { cat $@.said >&2; exit 1; }
	@$(not_serialized)
	@if grep -q '/overlap\.h' $(@:.o=.d) && ! echo '$(target)' | grep -q compute_90a; then \
	  echo "build.mk: $* launches kernels that overlap and is not translated for Hopper; name it in overlapping" >&2; rm $@; exit 1; fi

# Kernels that promise the bits of another implementation may not contract products and sums.
flags_encode := -fmad=false
flags_feedback := -fmad=false

$(objects)/cpu/%.o: $(ops)/src/cpu/%.cc
	@mkdir -p $(@D)
	$(compiling)
	$(quiet)$(CXX) -std=c++17 -O3 -fPIC -fvisibility=hidden -ffp-contract=off -Wall -Wextra -I$(ops)/include -I$(ops)/src \
	  -ffile-prefix-map=$(ops)=cudaops -MMD -MP -c $< -o $@

# The execution provider, all but what stands in for a GPU.
provider := $(ops)/ep
provider_parts := $(filter-out %_host,$(basename $(notdir $(wildcard $(provider)/*.cu $(provider)/*.cc))))
kernel_objects := $(library_objects)
library_objects += $(provider_parts:%=$(objects)/ep/%.o) $(addprefix $(objects)/ort/,gather_op.o linear_op.o linear_spec.o infer_shape.o read_weight.o)
ort_include ?= $(shell cd $(ops) && $(GO) list -m -f '{{.Dir}}' github.com/yalue/onnxruntime_go)

$(objects)/ep/%.o: $(provider)/%.cu
	@mkdir -p $(@D)
	$(compiling)
	$(quiet)$(NVCC) $(flags) $(optimized) $(if $(filter $*,$(hopper_alone)),,$(ampere)) $(hopper) -isystem $(ort_include) -MMD -MP -c $< -o $@ 2>$@.said || \
	  { cat $@.said >&2; exit 1; }
	@$(not_serialized)

$(objects)/ep/%.o: $(provider)/%.cc
	@mkdir -p $(@D)
	$(compiling)
	$(quiet)$(CXX) -std=c++17 -O2 -fPIC -fvisibility=hidden -Wall -Wextra -I$(ops)/include -I$(ops)/src -isystem $(ort_include) \
	  -ffile-prefix-map=$(ops)=cudaops -MMD -MP -c $< -o $@

$(objects)/ort/%.o: $(ops)/src/%.cc
	@mkdir -p $(@D)
	$(compiling)
	$(quiet)$(CXX) -std=c++17 -O2 -fPIC -fvisibility=hidden -Wall -Wextra -I$(ops)/include -I$(ops)/src -isystem $(ort_include) \
	  -ffile-prefix-map=$(ops)=cudaops -MMD -MP -c $< -o $@

$(objects)/shared/%.o: $(ops)/test/%.cc
	@mkdir -p $(@D)
	$(compiling)
	$(quiet)$(CXX) -std=c++17 -O2 -Wall -Wextra -I$(ops)/include -I$(ops)/src -MMD -MP -c $< -o $@

$(objects)/test/%.o: $(here)/test/%.cu
	@mkdir -p $(@D)
	$(compiling)
	$(quiet)$(NVCC) $(flags) $(optimized) $(both) -I$(ops)/test -MMD -MP -c $< -o $@

$(objects)/bench/%.o: $(here)/bench/%.cu
	@mkdir -p $(@D)
	$(compiling)
	$(quiet)$(NVCC) $(flags) $(optimized) $(if $(filter hopper,$(workbench_for)),,$(ampere)) $(hopper) -I$(ops)/test -MMD -MP -c $< -o $@

# Stripped: nvcc names symbols after its process, and the library is shipped.
$(out)/libcosetq_cuda.so: $(here)/src/exports.map $(library_objects)
	$(linking)
	$(quiet)$(NVCC) -shared $(link) -Xlinker -s,--version-script=$< -Xcompiler -static-libstdc++,-static-libgcc $(filter %.o,$^) -o $@.new
	$(quiet)mv $@.new $@

tests := $(basename $(notdir $(wildcard $(here)/test/*.cu)))
$(objects)/cosetq_cuda_test: $(kernel_objects) $(tests:%=$(objects)/test/%.o) $(objects)/shared/sample.o $(objects)/shared/check.o \
  $(objects)/cpu/portable_encode.o
	$(linking)
	$(quiet)$(NVCC) $(link) $^ -o $@

$(objects)/workbench: $(kernel_objects) $(patsubst $(here)/bench/%.cu,$(objects)/bench/%.o,$(wildcard $(here)/bench/*.cu)) \
  $(objects)/shared/sample.o
	$(linking)
	$(quiet)$(NVCC) $(link) $^ -o $@

check: all products
	$(objects)/cosetq_cuda_test

# The compiler does not know which registers products under way still read and write. The toolkit's disassembler shows what it made of that. Where
# everything is required it must be there.
required := $(findstring ops,$(COSETQ_REQUIRE))
disassembler := $(wildcard $(dir $(shell command -v $(NVCC)))cuobjdump)
products: $(filter $(hopper_alone:%=$(objects)/%.o) $(hopper_alone:%=$(objects)/ep/%.o),$(library_objects))
	@$(if $(disassembler),cd $(ops) && $(GO) run ../scripts/products $(disassembler) $(abspath $^),\
	  echo "$(if $(required),build.mk,skip): products under way: no cuobjdump beside $(NVCC)" >&2; test -z "$(required)")

sanitize: all
	$(SANITIZER) --error-exitcode 1 $(objects)/cosetq_cuda_test --short
	$(SANITIZER) --tool racecheck --error-exitcode 1 $(objects)/cosetq_cuda_test --short

bench: $(out)/libcosetq_cuda.so $(objects)/workbench
	$(objects)/workbench
	python3 $(here)/bench/table.py $(out)/libcosetq_cuda.so $(ops)/../docs/benchmarks.md

clean:
	rm -rf $(objects) $(out)/libcosetq_cuda.so

-include $(wildcard $(objects)/*.d $(objects)/*/*.d)
