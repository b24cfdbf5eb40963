//go:build cgo && linux

package ort

/*
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

typedef int (*add_product)(float *, int64_t, const float *, int64_t, const float *, int64_t, int64_t, int64_t, int64_t);

// open_products loads the library, for good, and finds the function, see cosetq/cosetq.h.
static add_product open_products(const char *path, const char **error) {
  void *lib = dlopen(path, RTLD_NOW);
  if (!lib) { *error = dlerror(); return NULL; }
  add_product f = (add_product)dlsym(lib, "cosetq_add_product");
  if (!f) *error = "it is older than this program and cannot multiply matrices";
  return f;
}

static int call_add_product(add_product f, float *c, int64_t c_stride, const float *a, int64_t a_stride, const float *b, int64_t b_stride,
    int64_t rows, int64_t depth, int64_t columns) {
  return f(c, c_stride, a, a_stride, b, b_stride, rows, depth, columns);
}
*/
import "C"

import (
	"errors"
	"fmt"
	"unsafe"

	"gonum.org/v1/gonum/blas/blas32"
)

// Products adds products of matrices with the native ops library. It is safe for concurrent use and needs no ONNX Runtime.
type Products struct{ function C.add_product }

// OpenProducts loads the native ops library at path, which then stays loaded. It fails with an error that wraps
// [ErrUnavailable].
func OpenProducts(path string) (*Products, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	var msg *C.char
	f := C.open_products(name, &msg)
	if f == nil {
		return nil, fmt.Errorf("%w: native ops library: %s: %s", ErrUnavailable, path, C.GoString(msg))
	}
	return &Products{f}, nil
}

// Add adds a·b to c. Every entry takes its products in the order of a's columns, each rounded to float32 before it is added,
// so the result is the same to the bit on every processor.
func (p *Products) Add(c, a, b blas32.General) error {
	if a.Rows != c.Rows || b.Rows != a.Cols || b.Cols != c.Cols || !fits(a) || !fits(b) || !fits(c) {
		return fmt.Errorf("ort: add a product of %d × %d and %d × %d to %d × %d: the sizes do not fit", a.Rows, a.Cols, b.Rows, b.Cols, c.Rows, c.Cols)
	}
	if C.call_add_product(p.function, (*C.float)(unsafe.SliceData(c.Data)), C.int64_t(c.Stride), (*C.float)(unsafe.SliceData(a.Data)), C.int64_t(a.Stride),
		(*C.float)(unsafe.SliceData(b.Data)), C.int64_t(b.Stride), C.int64_t(c.Rows), C.int64_t(a.Cols), C.int64_t(c.Cols)) != 0 {
		return errors.New("ort: the native ops library refuses the instruction set that the environment asks for")
	}
	return nil
}

// fits reports whether a matrix lies within its data.
func fits(m blas32.General) bool {
	return m.Rows >= 0 && m.Cols >= 0 && m.Stride >= m.Cols && (m.Rows == 0 || len(m.Data) >= (m.Rows-1)*m.Stride+m.Cols)
}
