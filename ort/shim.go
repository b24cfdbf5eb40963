//go:build cgo && linux

package ort

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

// The binding's Go API cannot return float16 outputs, scalars or empty tensors, and copies every output twice.
// Its C wrappers around the ONNX Runtime API can; they are linked into this program with it. Declared weak, because cgo
// links each package on its own first; the final link binds them to the binding's definitions.
typedef struct OrtStatus OrtStatus;
typedef struct OrtValue OrtValue;
typedef struct OrtSession OrtSession;
typedef struct OrtRunOptions OrtRunOptions;
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;
#define FROM_BINDING __attribute__((weak)) extern
FROM_BINDING OrtStatus *RunOrtSessionWithOptions(OrtSession *, OrtValue **in, char **in_names, int n_in,
  OrtValue **out, char **out_names, int n_out, OrtRunOptions *);
FROM_BINDING OrtStatus *CreateOrtTensorWithShape(void *data, size_t size, int64_t *shape, int64_t rank,
  OrtMemoryInfo *, unsigned type, OrtValue **out);
FROM_BINDING OrtStatus *GetValueType(OrtValue *, unsigned *out);
FROM_BINDING OrtStatus *GetTensorTypeAndShape(const OrtValue *, OrtTensorTypeAndShapeInfo **out);
FROM_BINDING OrtStatus *GetDimensionsCount(const OrtTensorTypeAndShapeInfo *, size_t *out);
FROM_BINDING OrtStatus *GetDimensions(const OrtTensorTypeAndShapeInfo *, int64_t *dims, size_t n);
FROM_BINDING OrtStatus *GetTensorElementType(const OrtTensorTypeAndShapeInfo *, unsigned *out);
FROM_BINDING OrtStatus *GetTensorMutableData(OrtValue *, void **out);
FROM_BINDING void ReleaseTensorTypeAndShapeInfo(OrtTensorTypeAndShapeInfo *);
FROM_BINDING void ReleaseOrtValue(OrtValue *);
FROM_BINDING const char *GetErrorMessage(OrtStatus *);
FROM_BINDING void ReleaseOrtStatus(OrtStatus *);

// describe reports what a value holds. *rank is the capacity of dims on entry.
static OrtStatus *describe(OrtValue *v, unsigned *kind, unsigned *type, int64_t *dims, size_t *rank, void **data) {
  size_t capacity = *rank;
  OrtTensorTypeAndShapeInfo *info = NULL;
  OrtStatus *s = GetValueType(v, kind);
  if (s || *kind != 1) return s;  // ONNX_TYPE_TENSOR
  if ((s = GetTensorTypeAndShape(v, &info))) return s;
  s = GetTensorElementType(info, type);
  if (!s) s = GetDimensionsCount(info, rank);
  if (!s && *rank <= capacity) s = GetDimensions(info, dims, *rank);
  ReleaseTensorTypeAndShapeInfo(info);
  if (s || *type == 8) return s;  // strings have no data pointer
  return GetTensorMutableData(v, data);
}

// The first two members of OrtApiBase, fixed since the first release.
typedef struct { const void *(*GetApi)(uint32_t); const char *(*GetVersionString)(void); } apiBase;

// runtime_version loads the library and asks its version, without asking for an API version that it may lack:
// ONNX Runtime prints to stderr when it does.
static const char *runtime_version(const char *path, const char **error) {
  void *lib = dlopen(path, RTLD_LAZY);
  if (!lib) { *error = dlerror(); return NULL; }
  const apiBase *(*base)(void) = (const apiBase *(*)(void))dlsym(lib, "OrtGetApiBase");
  if (!base) { *error = "it exports no OrtGetApiBase, so it is not ONNX Runtime"; return NULL; }
  return base()->GetVersionString();
}
*/
import "C"

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	"github.com/cosetq/cosetq/tensor"
)

// libraryVersion loads a shared library into the process, for good, and asks its version.
func libraryVersion(path string) (string, error) {
	c := C.CString(path)
	defer C.free(unsafe.Pointer(c))
	var msg *C.char
	v := C.runtime_version(c, &msg)
	if v == nil {
		return "", errors.New(C.GoString(msg))
	}
	return C.GoString(v), nil
}

func statusError(s *C.OrtStatus) error {
	if s == nil {
		return nil
	}
	defer C.ReleaseOrtStatus(s)
	return errors.New(strings.TrimSpace(C.GoString(C.GetErrorMessage(s))))
}

// nativeSession is what a run needs: handles of the binding's objects and the names as C strings.
type nativeSession struct {
	session, memory unsafe.Pointer
	in, out         []*C.char
}

func newNativeSession(session, memory unsafe.Pointer, in, out []string) *nativeSession {
	n := &nativeSession{session: session, memory: memory}
	for _, s := range in {
		n.in = append(n.in, C.CString(s))
	}
	for _, s := range out {
		n.out = append(n.out, C.CString(s))
	}
	return n
}

func (n *nativeSession) free() {
	for _, s := range append(n.in, n.out...) {
		C.free(unsafe.Pointer(s))
	}
	n.in, n.out = nil, nil
}

// run feeds one value per input and returns one per output, in the memory of that of into which is not nil.
// options is an OrtRunOptions or nil.
func (n *nativeSession) run(inputs, into []*tensor.Tensor, options unsafe.Pointer) ([]*tensor.Tensor, error) {
	var pin runtime.Pinner // ONNX Runtime keeps the input pointers until the run ends
	defer pin.Unpin()
	var values []*C.OrtValue
	defer func() {
		for _, v := range values {
			C.ReleaseOrtValue(v)
		}
	}()
	for i, t := range inputs {
		v, err := n.value(t, &pin)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %v", ErrInput, C.GoString(n.in[i]), err)
		}
		values = append(values, v)
	}
	outs := make([]*C.OrtValue, len(n.out))
	defer func() {
		for _, v := range outs {
			if v != nil {
				C.ReleaseOrtValue(v)
			}
		}
	}()
	for i, t := range into {
		if t == nil {
			continue
		}
		v, err := n.value(t, &pin)
		if err != nil {
			return nil, fmt.Errorf("output %s: %w", C.GoString(n.out[i]), err)
		}
		outs[i] = v
	}
	err := statusError(C.RunOrtSessionWithOptions((*C.OrtSession)(n.session), unsafe.SliceData(values), unsafe.SliceData(n.in),
		C.int(len(values)), unsafe.SliceData(outs), unsafe.SliceData(n.out), C.int(len(outs)), (*C.OrtRunOptions)(options)))
	if err != nil {
		return nil, err
	}
	result := make([]*tensor.Tensor, len(outs))
	for i, v := range outs {
		if result[i] = into[i]; result[i] != nil {
			continue
		}
		if result[i], err = copyOut(v); err != nil {
			return nil, fmt.Errorf("output %s: %w", C.GoString(n.out[i]), err)
		}
	}
	return result, nil
}

// value wraps a tensor's memory; pin keeps it in place.
func (n *nativeSession) value(t *tensor.Tensor, pin *runtime.Pinner) (*C.OrtValue, error) {
	if err := t.Check(); err != nil {
		return nil, err
	}
	data := unsafe.Pointer(new(uint64)) // an empty tensor still needs an address
	if len(t.Data) > 0 {
		data = unsafe.Pointer(unsafe.SliceData(t.Data))
	}
	pin.Pin(data)
	var shape *C.int64_t
	if len(t.Shape) > 0 {
		shape = (*C.int64_t)(unsafe.Pointer(unsafe.SliceData(t.Shape)))
	}
	var v *C.OrtValue
	err := statusError(C.CreateOrtTensorWithShape(data, C.size_t(len(t.Data)), shape, C.int64_t(len(t.Shape)),
		(*C.OrtMemoryInfo)(n.memory), C.uint(t.Type), &v))
	return v, err
}

// maxRank bounds the rank of an output; ONNX models stay in single digits.
const maxRank = 64

// copyOut copies an output out of ONNX Runtime's memory.
func copyOut(v *C.OrtValue) (*tensor.Tensor, error) {
	if v == nil {
		return nil, errors.New("an optional output without a value; this program handles tensors only")
	}
	var kind, typ C.uint
	var dims [maxRank]C.int64_t
	rank := C.size_t(maxRank)
	var data unsafe.Pointer
	if err := statusError(C.describe(v, &kind, &typ, &dims[0], &rank, &data)); err != nil {
		return nil, err
	}
	if kind != 1 || tensor.Type(typ) == tensor.String {
		return nil, ErrOutput
	}
	if rank > maxRank {
		return nil, fmt.Errorf("rank %d, more than %d", rank, maxRank)
	}
	shape := make([]int64, rank)
	for i := range shape {
		shape[i] = int64(dims[i])
	}
	t, err := tensor.New(tensor.Type(typ), shape...)
	if err != nil {
		return nil, err
	}
	copy(t.Data, unsafe.Slice((*byte)(data), len(t.Data)))
	return t, nil
}
