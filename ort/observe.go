//go:build cgo && linux

package ort

/*
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

// As cosetq/cosetq.h declares them.
struct cosetq_observation { int64_t columns, rows, bad_rows; int32_t full; double minimum, maximum, weight; };
typedef struct {
  int64_t (*tags)(char *, int64_t);
  int (*get)(const char *, struct cosetq_observation *);
  int (*sums)(const char *, double *);
  int (*moments)(const char *, int64_t, int64_t, double *);
  void (*reset)(const char *);
  void *(*staging_create)(void);
  void (*staging_free)(void *);
  void (*stage)(void *);
  int (*commit)(void *, int32_t);
} observe_functions;

// open_observations loads the library, for good, and finds the functions.
static void *open_observations(const char *path, observe_functions *f, const char **error) {
  void *lib = dlopen(path, RTLD_NOW);
  if (!lib) { *error = dlerror(); return NULL; }
  f->tags = (int64_t (*)(char *, int64_t))dlsym(lib, "cosetq_observe_tags");
  f->get = (int (*)(const char *, struct cosetq_observation *))dlsym(lib, "cosetq_observe_get");
  f->sums = (int (*)(const char *, double *))dlsym(lib, "cosetq_observe_sums");
  f->moments = (int (*)(const char *, int64_t, int64_t, double *))dlsym(lib, "cosetq_observe_moments");
  f->reset = (void (*)(const char *))dlsym(lib, "cosetq_observe_reset");
  f->staging_create = (void *(*)(void))dlsym(lib, "cosetq_observe_staging_create");
  f->staging_free = (void (*)(void *))dlsym(lib, "cosetq_observe_staging_free");
  f->stage = (void (*)(void *))dlsym(lib, "cosetq_observe_stage");
  f->commit = (int (*)(void *, int32_t))dlsym(lib, "cosetq_observe_commit");
  if (f->tags && f->get && f->sums && f->moments && f->reset) return lib;
  *error = "it is older than this program and cannot observe";
  dlclose(lib);
  return NULL;
}

static int64_t call_tags(observe_functions *f, char *out, int64_t n) { return f->tags(out, n); }
static int call_get(observe_functions *f, const char *tag, struct cosetq_observation *o) { return f->get(tag, o); }
static int call_sums(observe_functions *f, const char *tag, double *out) { return f->sums(tag, out); }
static int call_moments(observe_functions *f, const char *tag, int64_t first, int64_t last, double *out) {
  return f->moments(tag, first, last, out);
}
static void call_reset(observe_functions *f, const char *tag) { f->reset(tag); }
static void *call_staging_create(observe_functions *f) { return f->staging_create(); }
static void call_staging_free(observe_functions *f, void *s) { f->staging_free(s); }
static void call_stage(observe_functions *f, void *s) { f->stage(s); }
static int call_commit(observe_functions *f, void *s, int32_t threads) { return f->commit(s, threads); }
*/
import "C"

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"unsafe"
)

// Observations reads what the ai.coset::Observe nodes of all sessions of this process have gathered in the native ops
// library. It may be used from several goroutines.
type Observations struct {
	functions C.observe_functions
}

// OpenObservations loads the native ops library at path, or that for GPUs, which has those of the nodes that ran there. From then on it stays loaded, and what was gathered with it, whether or not
// a session is open.
func OpenObservations(path string) (*Observations, error) {
	p := C.CString(path)
	defer C.free(unsafe.Pointer(p))
	o := &Observations{}
	var msg *C.char
	if C.open_observations(p, &o.functions, &msg) == nil {
		return nil, libraryFails("native ops library %s: %s; build it anew with `make build`", path, C.GoString(msg))
	}
	return o, nil
}

var errNoMemory = errors.New("observations: out of memory")

// Tags lists what was observed, in order.
func (o *Observations) Tags() ([]string, error) {
	for size := C.int64_t(0); ; {
		buffer := make([]byte, size+1)
		got := C.call_tags(&o.functions, (*C.char)(unsafe.Pointer(&buffer[0])), size)
		switch {
		case got < 0:
			return nil, errNoMemory
		case got == 0:
			return nil, nil
		case got <= size:
			return strings.Split(string(buffer[:got-1]), "\x00"), nil
		}
		size = got
	}
}

func unknownTag(tag string) error {
	return fmt.Errorf("observations: nothing under the tag %q, or out of memory", tag)
}

// Get describes the observation of that tag. Reading ends the panel of rows being filled; rows may follow all the same.
func (o *Observations) Get(tag string) (Observation, error) {
	t := C.CString(tag)
	defer C.free(unsafe.Pointer(t))
	var c C.struct_cosetq_observation
	if C.call_get(&o.functions, t, &c) != 0 {
		return Observation{}, unknownTag(tag)
	}
	return Observation{
		Columns: int(c.columns), Rows: int64(c.rows), BadRows: int64(c.bad_rows), Full: c.full != 0,
		Min: float64(c.minimum), Max: float64(c.maximum), Weight: float64(c.weight),
	}, nil
}

// Sums writes the weighted sum of the rows, Σ w·a, to dst [K].
func (o *Observations) Sums(tag string, dst []float64) error {
	about, err := o.Get(tag)
	if err != nil {
		return err
	}
	if len(dst) != about.Columns {
		return fmt.Errorf("observations: %d sums of %q asked for, there are %d", len(dst), tag, about.Columns)
	}
	t := C.CString(tag)
	defer C.free(unsafe.Pointer(t))
	if C.call_sums(&o.functions, t, (*C.double)(unsafe.SliceData(dst))) != 0 {
		return unknownTag(tag)
	}
	return nil
}

// Moments writes rows first … last−1 of the matrix Σ w·a·aᵀ, of row i the K−i columns from the diagonal on, one row after the
// other; or entries first … last−1 of its diagonal where that is all there is. dst must have just that length.
func (o *Observations) Moments(tag string, first, last int, dst []float64) error {
	about, err := o.Get(tag)
	if err != nil {
		return err
	}
	want := last - first
	if about.Full {
		want = (last - first) * (2*about.Columns - first - last + 1) / 2
	}
	if first < 0 || last < first || last > about.Columns || len(dst) != want {
		return fmt.Errorf("observations: rows %d to %d of %q [%d] asked for into %d numbers", first, last, tag, about.Columns, len(dst))
	}
	if want == 0 {
		return nil
	}
	t := C.CString(tag)
	defer C.free(unsafe.Pointer(t))
	if C.call_moments(&o.functions, t, C.int64_t(first), C.int64_t(last), (*C.double)(unsafe.SliceData(dst))) != 0 {
		return unknownTag(tag)
	}
	return nil
}

// Reset forgets the observation of that tag.
func (o *Observations) Reset(tag string) {
	t := C.CString(tag)
	defer C.free(unsafe.Pointer(t))
	C.call_reset(&o.functions, t)
}

// ResetAll forgets all observations.
func (o *Observations) ResetAll() { C.call_reset(&o.functions, nil) }

// Staging keeps back what Observe nodes see during a run, so that runs at the same time are added up in an order that the caller
// gives. Not safe for concurrent use.
type Staging struct {
	from *Observations
	c    unsafe.Pointer
}

// NewStaging returns a staging, to be closed after use. The library for GPUs has none.
func (o *Observations) NewStaging() (*Staging, error) {
	f := &o.functions
	if f.staging_create == nil || f.staging_free == nil || f.stage == nil || f.commit == nil {
		return nil, errors.New("observations: this library keeps nothing back")
	}
	s := &Staging{from: o, c: C.call_staging_create(&o.functions)}
	if s.c == nil {
		return nil, errNoMemory
	}
	return s, nil
}

// Run calls run, which runs a session on the calling goroutine, and keeps what its Observe nodes see.
func (s *Staging) Run(run func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	C.call_stage(&s.from.functions, s.c)
	defer C.call_stage(&s.from.functions, nil)
	return run()
}

// Commit adds up what was kept, on so many threads. The sums do not depend on their number.
func (s *Staging) Commit(threads int) error {
	if C.call_commit(&s.from.functions, s.c, C.int32_t(max(threads, 1))) != 0 {
		return errNoMemory
	}
	return nil
}

// Close forgets what was kept and not added up.
func (s *Staging) Close() { C.call_staging_free(&s.from.functions, s.c) }
