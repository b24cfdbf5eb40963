//go:build cgo && linux

package ort

/*
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

// As cosetq/cosetq.h declares them.
struct cosetq_codec {
  int32_t dim, levels, gain_count;
  int32_t radices[4];
  float gains[16];
  float centre[4];
  float reach_one, reach_two, ray_shrink, max_steps;
  int32_t max_refinements, max_overloads;
};
typedef struct {
  void *(*create)(const struct cosetq_codec *, const int32_t *);
  void (*free)(void *);
  int64_t (*encode)(const void *, const float *, int64_t, const int32_t *, const float *, int64_t, double *, uint16_t *,
    uint8_t *);
  int64_t (*encode_again)(void *, int64_t, const float *, int64_t, const int32_t *, const float *, int64_t, double *, uint16_t *,
    uint8_t *); // on the GPU
  void (*in_metric)(const void *, const float *, const float *, const float *, int64_t, uint16_t *, uint8_t *, float *, float *);
  const char *(*error)(void); // of the library of GPU kernels, which does not code groups in a metric
} encode_functions;

// open_encoder loads the library, for good, and finds the functions: those on the CPU or, cosetq/cuda.h, on the GPU.
static int open_encoder(const char *path, int cuda, encode_functions *f, const char **error) {
  void *lib = dlopen(path, RTLD_NOW);
  if (!lib) { *error = dlerror(); return -1; }
  f->create = (void *(*)(const struct cosetq_codec *, const int32_t *))
    dlsym(lib, cuda ? "cosetq_cuda_encoder_create" : "cosetq_encoder_create");
  f->free = (void (*)(void *))dlsym(lib, cuda ? "cosetq_cuda_encoder_free" : "cosetq_encoder_free");
  f->encode = (int64_t (*)(const void *, const float *, int64_t, const int32_t *, const float *, int64_t, double *, uint16_t *,
    uint8_t *))(cuda ? NULL : dlsym(lib, "cosetq_encode"));
  f->encode_again = (int64_t (*)(void *, int64_t, const float *, int64_t, const int32_t *, const float *, int64_t, double *, uint16_t *,
    uint8_t *))(cuda ? dlsym(lib, "cosetq_cuda_encode_again") : NULL);
  f->in_metric = (void (*)(const void *, const float *, const float *, const float *, int64_t, uint16_t *, uint8_t *, float *, float *))
    (cuda ? NULL : dlsym(lib, "cosetq_encode_in_metric"));
  f->error = cuda ? (const char *(*)(void))dlsym(lib, "cosetq_cuda_error") : NULL;
  int (*devices)(void) = cuda ? (int (*)(void))dlsym(lib, "cosetq_cuda_device_count") : NULL;
  if (!f->create || !f->free || (cuda ? !f->encode_again || !f->error || !devices : !f->encode || !f->in_metric)) {
    *error = "it is older than this program and cannot encode";
    return -1;
  }
  if (!cuda || devices() > 0) return 0;
  *error = f->error();
  if (!**error) *error = "no CUDA device";
  return -1;
}

static const char *call_error(encode_functions *f) { return f->error ? f->error() : ""; }

static void *call_create(encode_functions *f, const struct cosetq_codec *c, const int32_t *leaders) { return f->create(c, leaders); }
static void call_free(encode_functions *f, void *e) { f->free(e); }
static int64_t call_encode(encode_functions *f, void *e, int64_t id, const float *rows, int64_t groups, const int32_t *at,
    const float *steps, int64_t count, double *sse, uint16_t *indices, uint8_t *gains) {
  if (f->encode_again) return f->encode_again(e, id, rows, groups, at, steps, count, sse, indices, gains);
  return f->encode(e, rows, groups, at, steps, count, sse, indices, gains);
}
static void call_in_metric(encode_functions *f, const void *e, const float *x, const float *steps, const float *metric, int64_t count,
    uint16_t *indices, uint8_t *gains, float *weights, float *losses) {
  f->in_metric(e, x, steps, metric, count, indices, gains, weights, losses);
}
*/
import "C"

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/cosetq/cosetq/lattice"
)

// Encoder codes rows of weights with the native ops library: the same results as lattice.Codec, to the bit. It is safe for
// concurrent use and needs no ONNX Runtime.
type Encoder struct {
	functions C.encode_functions
	codec     *lattice.Codec
	handle    unsafe.Pointer
}

// OpenEncoder loads the native ops library at path, which then stays loaded, and returns its encoder for a codec. It fails
// with an error that wraps [ErrUnavailable], also for codecs that the library has no kernels for: all but those of D4 with
// radices 2 and 4 and points of moderate size, and those of Z with one level and a radix of 2, 4, 8 or 16.
func OpenEncoder(path string, codec *lattice.Codec) (*Encoder, error) {
	return openEncoder(path, codec, false)
}

func openEncoder(path string, codec *lattice.Codec, cuda bool) (*Encoder, error) {
	e := &Encoder{codec: codec}
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	var msg *C.char
	where := C.int(0)
	if cuda {
		where = 1
	}
	if C.open_encoder(name, where, &e.functions, &msg) != 0 {
		return nil, libraryFails("native ops library: %s: %s", path, C.GoString(msg))
	}
	if description, leaders, ok := describeCodec(codec); ok {
		e.handle = C.call_create(&e.functions, &description, (*C.int32_t)(unsafe.Pointer(unsafe.SliceData(leaders))))
	}
	if e.handle == nil {
		return nil, libraryFails("native ops library %s: no encoder for %v", path, codec)
	}
	free := e.functions
	runtime.AddCleanup(e, func(handle unsafe.Pointer) { C.call_free(&free, handle) }, e.handle)
	return e, nil
}

// describeCodec describes a codec to the library, with the leaders of all classes of all levels; ok is false for those that it has no
// kernels for.
func describeCodec(codec *lattice.Codec) (d C.struct_cosetq_codec, leaders []int32, ok bool) {
	dim := codec.Lattice().Dim()
	if (codec.Lattice() != lattice.D4 && dim != 1) || codec.Levels() > len(d.radices) {
		return d, nil, false
	}
	a := codec.Arithmetic()
	d.dim, d.levels, d.gain_count = C.int32_t(dim), C.int32_t(codec.Levels()), C.int32_t(len(codec.Gains()))
	for m, q := range codec.Radices() {
		d.radices[m] = C.int32_t(q)
		table := codec.Leaders(m)
		for k := range table.Len() {
			leaders = append(leaders, table.At(k)...)
		}
	}
	for g, gain := range codec.Gains() {
		d.gains[g] = C.float(gain)
	}
	for j, x := range codec.Centre() {
		d.centre[j] = C.float(x)
	}
	d.reach_one, d.reach_two = C.float(a.ReachOne), C.float(a.ReachTwo)
	d.ray_shrink, d.max_steps = C.float(a.RayShrink), C.float(a.MaxSteps)
	d.max_refinements, d.max_overloads = C.int32_t(a.MaxRefinements), C.int32_t(a.MaxOverloads)
	return d, leaders, true
}

// Distortions implements lattice.RowCoder.
func (e *Encoder) Distortions(sse []float64, b lattice.RowBatch) error {
	if err := b.Check(sse); err != nil {
		return err
	}
	return e.run(nil, nil, sse, b)
}

// EncodeRows implements lattice.RowCoder.
func (e *Encoder) EncodeRows(indices []uint16, gains []uint8, sse []float64, b lattice.RowBatch) error {
	if err := b.CheckCodes(e.codec, indices, gains, sse); err != nil {
		return err
	}
	return e.run(indices, gains, sse, b)
}

// EncodeInMetric implements lattice.MetricCoder.
func (e *Encoder) EncodeInMetric(g lattice.MetricGroups) error {
	rows := len(g.Steps)
	if len(g.X) != rows*lattice.GroupSize || len(g.Weights) != len(g.X) || len(g.Metric) != 2*lattice.GroupSize*lattice.GroupSize ||
		len(g.Indices) != rows*e.codec.GroupIndices() || len(g.Gains) != rows || len(g.Losses) != rows {
		return fmt.Errorf("ort: groups of %d rows in a metric: lengths do not fit", rows)
	}
	C.call_in_metric(&e.functions, e.handle, (*C.float)(unsafe.SliceData(g.X)), (*C.float)(unsafe.SliceData(g.Steps)),
		(*C.float)(unsafe.SliceData(g.Metric)), C.int64_t(rows), (*C.uint16_t)(unsafe.SliceData(g.Indices)),
		(*C.uint8_t)(unsafe.SliceData(g.Gains)), (*C.float)(unsafe.SliceData(g.Weights)), (*C.float)(unsafe.SliceData(g.Losses)))
	runtime.KeepAlive(e)
	return nil
}

// run codes a batch whose lengths fit, and leaves to the codec what the library does not take: steps of 0, and what fails.
func (e *Encoder) run(indices []uint16, gains []uint8, sse []float64, b lattice.RowBatch) error {
	runtime.LockOSThread() // the message of an error is that of the thread
	defer runtime.UnlockOSThread()
	refused := C.call_encode(&e.functions, e.handle, C.int64_t(b.ID), (*C.float)(unsafe.SliceData(b.Weights)), C.int64_t(b.Width/lattice.GroupSize),
		(*C.int32_t)(unsafe.SliceData(b.At)), (*C.float)(unsafe.SliceData(b.Steps)), C.int64_t(b.Len()),
		(*C.double)(unsafe.SliceData(sse)), (*C.uint16_t)(unsafe.SliceData(indices)), (*C.uint8_t)(unsafe.SliceData(gains)))
	runtime.KeepAlive(e)
	if refused < 0 {
		return fmt.Errorf("ort: encode %d rows on the GPU: %s", b.Len(), C.GoString(C.call_error(&e.functions)))
	}
	for i := 0; refused > 0; i++ {
		if sse[i] >= 0 {
			continue
		}
		refused--
		one := b.Item(i)
		if indices == nil {
			if err := e.codec.Distortions(sse[i:i+1], one); err != nil {
				return err
			}
			continue
		}
		groups := b.Width / lattice.GroupSize
		slots := groups * e.codec.GroupIndices()
		if err := e.codec.EncodeRows(indices[i*slots:][:slots], gains[i*groups:][:groups], sse[i:i+1], one); err != nil {
			return err
		}
	}
	return nil
}
