//go:build cgo && linux

package ort

/*
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

// As cosetq/cuda.h declares them.
typedef struct {
  void *(*create)(const void *, const int32_t *, int64_t, const float *, const float *);
  void (*free)(void *);
  int (*run)(const void *, const float *, const float *, int64_t, uint16_t *, uint8_t *, float *, double *);
  const char *(*error)(void);
} feedback_functions;

// open_feedback finds the functions of a library that is loaded already.
static int open_feedback(const char *path, feedback_functions *f) {
  void *lib = dlopen(path, RTLD_NOW);
  if (!lib) return -1;
  f->create = (void *(*)(const void *, const int32_t *, int64_t, const float *, const float *))dlsym(lib, "cosetq_cuda_feedback_create");
  f->free = (void (*)(void *))dlsym(lib, "cosetq_cuda_feedback_free");
  f->run = (int (*)(const void *, const float *, const float *, int64_t, uint16_t *, uint8_t *, float *, double *))
    dlsym(lib, "cosetq_cuda_feedback_run");
  f->error = (const char *(*)(void))dlsym(lib, "cosetq_cuda_error");
  return f->create && f->free && f->run && f->error ? 0 : -1;
}

static void *call_feedback_create(feedback_functions *f, const void *codec, const int32_t *leaders, int64_t groups,
    const float *lower, const float *metrics) {
  return f->create(codec, leaders, groups, lower, metrics);
}
static void call_feedback_free(feedback_functions *f, void *p) { f->free(p); }
static int call_feedback_run(feedback_functions *f, const void *p, const float *rows, const float *steps, int64_t count,
    uint16_t *indices, uint8_t *gains, float *errors, double *losses) {
  return f->run(p, rows, steps, count, indices, gains, errors, losses);
}
static const char *call_feedback_error(feedback_functions *f) { return f->error(); }
*/
import "C"

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/cosetq/cosetq/lattice"
)

// CUDAEncoder is an [Encoder] on the current GPU, which also codes with feedback there.
type CUDAEncoder struct {
	rows     *Encoder
	feedback C.feedback_functions
}

// OpenCUDAEncoder is [OpenEncoder] for the library of GPU kernels. It also fails, in the same way, where there is no GPU.
func OpenCUDAEncoder(path string, codec *lattice.Codec) (*CUDAEncoder, error) {
	e, err := openEncoder(path, codec, true)
	if err != nil {
		return nil, err
	}
	c := &CUDAEncoder{rows: e}
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	if C.open_feedback(name, &c.feedback) != 0 {
		return nil, libraryFails("native ops library: %s: it is older than this program and cannot round with feedback", path)
	}
	return c, nil
}

// Distortions implements lattice.RowCoder.
func (e *CUDAEncoder) Distortions(sse []float64, b lattice.RowBatch) error {
	return e.rows.Distortions(sse, b)
}

// EncodeRows implements lattice.RowCoder.
func (e *CUDAEncoder) EncodeRows(indices []uint16, gains []uint8, sse []float64, b lattice.RowBatch) error {
	return e.rows.EncodeRows(indices, gains, sse, b)
}

// feedbackCoder codes the rows of one weight.
type feedbackCoder struct {
	functions C.feedback_functions
	codec     *lattice.Codec
	groups    int
	handle    unsafe.Pointer
}

// WithFeedback implements lattice.FeedbackDevice.
func (e *CUDAEncoder) WithFeedback(f lattice.Feedback) (lattice.FeedbackCoder, error) {
	places := f.Groups * lattice.GroupSize
	if len(f.Metrics) != f.Groups*2*lattice.GroupSize*lattice.GroupSize || f.Lower != nil && len(f.Lower) != places*places {
		return nil, fmt.Errorf("ort: feedback of %d groups: lengths do not fit", f.Groups)
	}
	description, leaders, _ := describeCodec(e.rows.codec)
	runtime.LockOSThread() // the message of an error is that of the thread
	defer runtime.UnlockOSThread()
	handle := C.call_feedback_create(&e.feedback, unsafe.Pointer(&description), (*C.int32_t)(unsafe.Pointer(unsafe.SliceData(leaders))),
		C.int64_t(f.Groups), (*C.float)(unsafe.SliceData(f.Lower)), (*C.float)(unsafe.SliceData(f.Metrics)))
	if handle == nil {
		return nil, fmt.Errorf("ort: rounding with feedback on the GPU: %s", C.GoString(C.call_feedback_error(&e.feedback)))
	}
	c := &feedbackCoder{functions: e.feedback, codec: e.rows.codec, groups: f.Groups, handle: handle}
	free := e.feedback
	runtime.AddCleanup(c, func(handle unsafe.Pointer) { C.call_feedback_free(&free, handle) }, handle)
	return c, nil
}

// CodeRows implements lattice.FeedbackCoder.
func (c *feedbackCoder) CodeRows(r lattice.FeedbackRows, weights, steps []float32) error {
	groups := len(steps) * c.groups
	if len(weights) != groups*lattice.GroupSize || len(r.Errors) != len(weights) || len(r.Losses) != len(steps) ||
		len(r.Gains) != groups || len(r.Indices) != groups*c.codec.GroupIndices() {
		return fmt.Errorf("ort: %d rows of %d groups: lengths do not fit", len(steps), c.groups)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	status := C.call_feedback_run(&c.functions, c.handle, (*C.float)(unsafe.SliceData(weights)), (*C.float)(unsafe.SliceData(steps)),
		C.int64_t(len(steps)), (*C.uint16_t)(unsafe.SliceData(r.Indices)), (*C.uint8_t)(unsafe.SliceData(r.Gains)),
		(*C.float)(unsafe.SliceData(r.Errors)), (*C.double)(unsafe.SliceData(r.Losses)))
	runtime.KeepAlive(c)
	if status != 0 {
		return fmt.Errorf("ort: round %d rows with feedback on the GPU: %s", len(steps), C.GoString(C.call_feedback_error(&c.functions)))
	}
	return nil
}
