# cosetq: what a person or a script calls. `make help` lists it.
#
# Needs Go, g++ and make, and once, for ONNX Runtime, either Python 3 with pip or npm. Everything that is fetched or
# built lies in build/ and bin/; after `make setup` (and for the tests `make test` once) no network is needed.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
GO ?= go
# How much runs at once, in all that this starts together: stages of the tests, and compilers.
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(JOBS)
endif
# The steps of a target, and the targets of one call, run in order; the stages of the tests do not.
ifneq ($(MAKECMDGOALS),stages)
.NOTPARALLEL:
endif
# How long each fuzz target runs in `make test`.
FUZZTIME ?= 5s
# Packages that start goroutines of their own, tested again under the race detector.
RACE ?= ./calib/... ./eval/... ./lattice/... ./models/... ./quant/...
# What `make bench-cpu` measures: flags of cmd/layerbench, and models with the sizes of their inputs.
LAYERBENCH ?=
MODELS ?=
# What `make quality` measures: the folder of test models and data, and a Python with onnxruntime and onnx.
QUALITY_DATA ?= ../shared/data
PYTHON ?=
# The GPU of this machine, as internal/testenv finds it; `make test GPU=` leaves it alone.
GPU := $(wildcard /dev/nvidia[0-9]* /usr/lib/wsl/drivers/*/libcuda.so.1.1)
# Passed on to every `go test`. Beside other stages a package may take longer than the ten minutes that Go allows. The stage vet
# looks for all that `go test` would look for, once for every way of building.
TESTFLAGS ?= -count=1 -timeout=20m -vet=off

# Version control stamps fail in checkouts that belong to another user; the version is stamped below instead. The tool names no
# paths, and with other flags all is built again, down to Go's own packages: so the tests are built as the tool is.
export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=false -trimpath)
export ORT_SHA256
# Words of flags for the shell to split and not to read: they have semicolons.
export LAYERBENCH

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# Recipes with these begin with a +, which lends them their part of the jobs.
native := $(MAKE) --no-print-directory -f cudaops/build.mk
cuda := $(MAKE) --no-print-directory -f cudaops/cuda/build.mk
stage := scripts/stage
staticcheck := build/tools/staticcheck
govulncheck := build/tools/govulncheck
cyclonedx := build/tools/cyclonedx-gomod

.PHONY: dist reproducible help setup setup-ort-versions setup-python setup-node setup-cuda build cuda cuda-test bench-cuda quickstart test lint sbom bench bench-cpu quality clean distclean
.PHONY: tools-present fmt vet staticcheck vulncheck generated nocgo unit race native-test native-asan fuzz stages

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 26

setup: tools-present ## fetch what is needed and check it: Go modules, ONNX Runtime into build/ort
	@$(GO) mod download
	@cd scripts/tools && $(GO) mod download
	@$(GO) run ./scripts/setup ort

setup-ort-versions: tools-present ## fetch the older ONNX Runtimes of the compatibility test
	@$(GO) run ./scripts/setup ort-versions

setup-python: tools-present ## make build/venv, in which the Python snippets are tested
	@$(GO) run ./scripts/setup python

setup-cuda: tools-present ## fetch NVIDIA's compiler into build/cuda, unless there is one of CUDA 13 or later; needs no GPU
	@$(GO) run ./scripts/setup cuda
	@$(if $(ort_include),,$(GO) mod download github.com/yalue/onnxruntime_go) # it carries ONNX Runtime's headers

cuda: setup-cuda ## build the library of GPU kernels and its tests
	+@$(cuda) all

bench-cuda: setup-cuda ## time the GPU kernels beside cuBLAS: docs/benchmarks.md's GPU table; needs a GPU and PyTorch
	+@$(cuda) bench

cuda-test: setup-cuda ## build the GPU kernels and what times them, and test them; skips the tests where there is no GPU
	+@$(stage) "GPU kernels" $(cuda) check workbench workbench_for=hopper $(if $(GPU),,quick=yes)

setup-node: tools-present ## fetch ONNX Runtime for JavaScript into build/node, with which those snippets are tested
	@$(GO) run ./scripts/setup node

build: setup ## build the native library and bin/cosetq
	+@$(native) all
	@mkdir -p bin
	CGO_ENABLED=1 $(GO) build -trimpath -ldflags '-X github.com/cosetq/cosetq.version=$(VERSION)' -o bin/cosetq ./cmd/cosetq

quickstart: build ## build everything, then quantize and judge a small model
	bin/cosetq quickstart --force --dir build/quickstart

# With the library for GPUs if that was ever built, and then as the sources are now.
dist: build $(if $(wildcard build/ops/libcosetq_cuda.so),cuda) ## pack a release in build/dist: tool, native library, man pages, completion, licences
	+@scripts/dist $(VERSION)

reproducible: setup ## pack the release twice, in clones at different paths, and compare
	+@scripts/reproducible $(VERSION)

# Generators write files that other stages read, and a fuzz target's time counts only if it has the machine.
test: build ## run all tests
	@rm -f build/stages
	@$(MAKE) --no-print-directory generated
	@$(MAKE) --no-print-directory stages
	@$(MAKE) --no-print-directory fuzz
	@echo "all tests passed"

lint: fmt vet staticcheck ## check the form of the Go code

bench: build ## run the benchmarks of the Go packages and of the kernels alone
	$(GO) test -run '^$$' -bench . -benchmem ./...
	+$(native) bench

bench-cpu: build ## time layers against ONNX Runtime's own, and whole models: MODELS="llama.onnx:seq=1 vit.onnx:batch=1"
	@$(GO) run ./cmd/layerbench $$LAYERBENCH
	@for m in $(MODELS); do scripts/bench-model "$${m%%:*}" "$${m#*:}"; done

quality: build ## measure rate against loss: docs/quality.md; needs QUALITY_DATA, with PYTHON=... beside GPTQ
	@PYTHON="$(PYTHON)" scripts/quality "$(QUALITY_DATA)"

sbom: $(cyclonedx) ## write build/sbom.cdx.json: every module in the program, its checksum and its licence
	@$(cyclonedx) app -json -licenses -std -main cmd/cosetq -output build/sbom.cdx.json .
	@echo "wrote build/sbom.cdx.json"

clean: ## remove what was built, not what was fetched
	rm -rf bin build/ops build/tools build/stages build/logs build/quickstart

distclean: clean ## remove what was fetched as well
	rm -rf build

# The parts of `make test`.

# Side by side: those with long stretches on one core first, compilers, which fill all cores, last. BESIDE is what else
# .ci/run has run with them.
BESIDE ?=
stages: native-asan unit race vet staticcheck vulncheck fmt nocgo native-test $(BESIDE)

tools-present:
	@for tool in $(GO) g++; do command -v $$tool >/dev/null || { \
	  echo "make: $$tool is not installed; cosetq needs Go 1.26 or later, g++ 11 or later, and make" >&2; exit 1; }; done

fmt:
	@$(stage) gofmt scripts/formatted

vet:
	@$(stage) "go vet" $(GO) vet ./...

staticcheck: $(staticcheck)
	@$(stage) staticcheck $(staticcheck) ./...

$(staticcheck): package := honnef.co/go/tools/cmd/staticcheck
$(govulncheck): package := golang.org/x/vuln/cmd/govulncheck
$(cyclonedx): package := github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod
$(staticcheck) $(govulncheck) $(cyclonedx): scripts/tools/go.mod scripts/tools/go.sum
	@mkdir -p $(@D)
	@cd scripts/tools && CGO_ENABLED=0 $(GO) build -o ../../$@ $(package)

vulncheck: $(govulncheck)
	@$(stage) govulncheck scripts/vulncheck $(govulncheck)

generated:
	@$(stage) "generated files" scripts/generated

# The library part builds without cgo, and where there is no mmap; there all is compiled for this alone, Go's own packages too, so that it is
# not made fast, nor told to debuggers.
nocgo:
	@$(stage) "build without cgo" env CGO_ENABLED=0 $(GO) build ./...
	@$(stage) "build for windows" env CGO_ENABLED=0 GOOS=windows GOARCH=arm64 $(GO) build -gcflags='all=-N -l -dwarf=false' -ldflags=-s ./...

unit:
	+@$(stage) "provider on the host" $(native) provider
	@$(stage) "go test" $(GO) test $(TESTFLAGS) -shuffle=on ./...

# With a GPU the tests that need it wait for its library, and may not be skipped.
ifneq ($(GPU),)
unit: cuda-test
unit: export COSETQ_REQUIRE := $(COSETQ_REQUIRE),cuda
endif

race:
	@$(stage) "go test -race" env CGO_ENABLED=1 $(GO) test $(TESTFLAGS) -race -short $(RACE)

native-test:
	+@$(stage) "native tests" $(native) check

native-asan:
	+@$(stage) "native tests, sanitized" $(native) asan

fuzz:
	@$(stage) fuzz scripts/fuzz $(FUZZTIME)
