//go:build cgo && linux

package ort

/*
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

// As cosetq/ep.h declares them.
struct cosetq_ep_traffic {
  int64_t runs, uploads, upload_bytes, downloads, download_bytes;
};
struct cosetq_ep_attentions {
  int64_t rows, few, tiles, groups;
};
typedef struct {
  int64_t (*device)(char *, int64_t, int64_t *);
  int64_t (*placement)(char *, int64_t);
  void (*traffic)(struct cosetq_ep_traffic *);
  int64_t (*repeats)(void);
  void (*joined)(int64_t *, int64_t *);
  void (*attentions)(struct cosetq_ep_attentions *);
  int64_t (*moves)(void);
  int64_t (*weight_bytes)(void);
  int64_t (*free_memory)(void);
} provider_functions;

// open_provider loads the library, for good, and finds the functions.
static int open_provider(const char *path, provider_functions *f, const char **error) {
  void *lib = dlopen(path, RTLD_NOW);
  if (!lib) { *error = dlerror(); return -1; }
  f->device = (int64_t (*)(char *, int64_t, int64_t *))dlsym(lib, "cosetq_ep_device");
  f->placement = (int64_t (*)(char *, int64_t))dlsym(lib, "cosetq_ep_placement");
  f->traffic = (void (*)(struct cosetq_ep_traffic *))dlsym(lib, "cosetq_ep_traffic");
  f->repeats = (int64_t (*)(void))dlsym(lib, "cosetq_ep_repeats");
  f->joined = (void (*)(int64_t *, int64_t *))dlsym(lib, "cosetq_ep_joined");
  f->attentions = (void (*)(struct cosetq_ep_attentions *))dlsym(lib, "cosetq_ep_attentions");
  f->moves = (int64_t (*)(void))dlsym(lib, "cosetq_ep_moves");
  f->weight_bytes = (int64_t (*)(void))dlsym(lib, "cosetq_ep_weight_bytes");
  f->free_memory = (int64_t (*)(void))dlsym(lib, "cosetq_ep_free_memory");
  if (f->device && f->placement && f->traffic && f->repeats && f->joined && f->attentions && f->moves && f->weight_bytes && f->free_memory) return 0;
  *error = "it is no library of an execution provider of cosetq, or an older one";
  return -1;
}

static int64_t call_device(provider_functions *f, char *out, int64_t n, int64_t *problem) { return f->device(out, n, problem); }
static int64_t call_placement(provider_functions *f, char *out, int64_t n) { return f->placement(out, n); }
static void call_traffic(provider_functions *f, struct cosetq_ep_traffic *t) { f->traffic(t); }
static int64_t call_repeats(provider_functions *f) { return f->repeats(); }
static void call_joined(provider_functions *f, int64_t *patterns, int64_t *elementwise) { f->joined(patterns, elementwise); }
static void call_attentions(provider_functions *f, struct cosetq_ep_attentions *a) { f->attentions(a); }
static int64_t call_moves(provider_functions *f) { return f->moves(); }
static int64_t call_free_memory(provider_functions *f) { return f->free_memory(); }
static int64_t call_weight_bytes(provider_functions *f) { return f->weight_bytes(); }
*/
import "C"

import (
	"fmt"
	"strings"
	"sync"
	"unsafe"

	binding "github.com/yalue/onnxruntime_go"
)

// Provider is the library of the execution provider, asked about itself. Sessions that use it share it with this view.
type Provider struct {
	path      string
	functions C.provider_functions
}

// OpenProvider loads the library at path, which then stays loaded. It needs no ONNX Runtime, and no GPU.
func OpenProvider(path string) (*Provider, error) {
	p := &Provider{path: path}
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	var msg *C.char
	if C.open_provider(name, &p.functions, &msg) != 0 {
		return nil, libraryFails("GPU library: %s", C.GoString(msg))
	}
	return p, nil
}

// Device is the name of the GPU that sessions would use. It fails with an error that wraps [ErrUnavailable] and says why there
// is none.
func (p *Provider) Device() (string, error) {
	var problem C.int64_t
	name := text(func(out *C.char, n C.int64_t) C.int64_t { return C.call_device(&p.functions, out, n, &problem) })
	if problem != 0 {
		return "", libraryFails("no GPU to run on: %s", name)
	}
	return name, nil
}

// placement lists the nodes of the model that was loaded last, as the provider saw them.
func (p *Provider) placement() []NodeRun {
	var nodes []NodeRun
	for line := range strings.Lines(text(func(out *C.char, n C.int64_t) C.int64_t { return C.call_placement(&p.functions, out, n) })) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), "\t", 3)
		if len(f) != 3 {
			continue
		}
		_, op, found := strings.Cut(f[1], "::")
		if !found {
			op = f[1]
		}
		n := NodeRun{Node: f[0], Op: op, Provider: ProviderName, Calls: 1, Reason: f[2]}
		if n.Reason != "" {
			n.Provider = ""
		}
		nodes = append(nodes, n)
	}
	return nodes
}

// Traffic tells what ran on the GPU since the library was loaded, and what was copied between it and the host meanwhile.
func (p *Provider) Traffic() Traffic {
	var t C.struct_cosetq_ep_traffic
	C.call_traffic(&p.functions, &t)
	return Traffic{
		Runs: int64(t.runs), Repeats: int64(C.call_repeats(&p.functions)), Uploads: int64(t.uploads), UploadBytes: int64(t.upload_bytes),
		Downloads: int64(t.downloads), DownloadBytes: int64(t.download_bytes),
	}
}

// Joined tells how many operators that graphs had in pieces became one kernel, and how many elementwise nodes part of another, in all sessions
// since the library was loaded.
func (p *Provider) Joined() (patterns, elementwise int64) {
	var a, b C.int64_t
	C.call_joined(&p.functions, &a, &b)
	return int64(a), int64(b)
}

// Attentions tells which kernels attentions were started with since the library was loaded.
func (p *Provider) Attentions() Attentions {
	var a C.struct_cosetq_ep_attentions
	C.call_attentions(&p.functions, &a)
	return Attentions{Rows: int64(a.rows), Few: int64(a.few), Tiles: int64(a.tiles), Groups: int64(a.groups)}
}

// Moves is how many copies were started since the library was loaded that do no more than have numbers lie in another order.
func (p *Provider) Moves() int64 { return int64(C.call_moves(&p.functions)) }

// WeightBytes is the memory of the GPU that coded weights take in all sessions that are open. Layers with the same weight share it.
func (p *Provider) WeightBytes() int64 { return int64(C.call_weight_bytes(&p.functions)) }

// FreeMemory is how many bytes of the GPU's memory are free, 0 where that is not known.
func (p *Provider) FreeMemory() int64 { return int64(C.call_free_memory(&p.functions)) }

// text reads a text of a size that changes.
func text(read func(out *C.char, n C.int64_t) C.int64_t) string {
	for size := C.int64_t(256); ; {
		buffer := make([]byte, size)
		if need := read((*C.char)(unsafe.Pointer(&buffer[0])), size); need > size {
			size = need
			continue
		}
		return C.GoString((*C.char)(unsafe.Pointer(&buffer[0])))
	}
}

var (
	providersMu sync.Mutex
	registered  string // path of the library that is registered with the runtime
)

// useProvider gives the session's nodes to the provider of the library, registering it at the first time.
func useProvider(opts *binding.SessionOptions, path string) error {
	p, err := OpenProvider(path)
	if err != nil {
		return fmt.Errorf("%w; build it with `make cuda`, or run on the CPU", err)
	}
	if _, err := p.Device(); err != nil {
		return fmt.Errorf("%w; run on the CPU, or make the GPU and its driver visible here (`nvidia-smi` lists them)", err)
	}
	providersMu.Lock()
	defer providersMu.Unlock()
	switch registered {
	case path:
	case "":
		if err := binding.RegisterExecutionProviderLibrary(ProviderName, path); err != nil {
			return libraryFails("GPU library %s: %v", path, err)
		}
		registered = path
	default:
		return libraryFails("GPU library %s: this process uses %s already; use one per process", path, registered)
	}
	devices, err := binding.GetEpDevices()
	if err != nil {
		return libraryFails("GPU library %s: %v", path, err)
	}
	for _, d := range devices {
		if d.EpName() == ProviderName {
			return opts.AppendExecutionProviderV2([]binding.EpDevice{d}, nil)
		}
	}
	return libraryFails("GPU library %s: ONNX Runtime sees no device of it", path)
}
