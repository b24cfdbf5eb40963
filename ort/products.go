//go:build cgo && linux

package ort

/*
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

// As cosetq/cosetq.h declares them.
typedef struct {
  int (*add)(float *, int64_t, const float *, int64_t, const float *, int64_t, int64_t, int64_t, int64_t);
  int (*add_double)(double *, int64_t, const double *, int64_t, const double *, int64_t, int64_t, int64_t, int64_t);
} product_functions;

// open_products loads the library, for good, and finds the functions.
static int open_products(const char *path, product_functions *f, const char **error) {
  void *lib = dlopen(path, RTLD_NOW);
  if (!lib) { *error = dlerror(); return -1; }
  f->add = (int (*)(float *, int64_t, const float *, int64_t, const float *, int64_t, int64_t, int64_t, int64_t))
    dlsym(lib, "cosetq_add_product");
  f->add_double = (int (*)(double *, int64_t, const double *, int64_t, const double *, int64_t, int64_t, int64_t, int64_t))
    dlsym(lib, "cosetq_add_product_double");
  if (f->add && f->add_double) return 0;
  *error = "it is older than this program and cannot multiply matrices";
  return -1;
}

static int call_add(product_functions *f, float *c, int64_t c_stride, const float *a, int64_t a_stride, const float *b, int64_t b_stride,
    int64_t rows, int64_t depth, int64_t columns) {
  return f->add(c, c_stride, a, a_stride, b, b_stride, rows, depth, columns);
}
static int call_add_double(product_functions *f, double *c, int64_t c_stride, const double *a, int64_t a_stride, const double *b, int64_t b_stride,
    int64_t rows, int64_t depth, int64_t columns) {
  return f->add_double(c, c_stride, a, a_stride, b, b_stride, rows, depth, columns);
}
*/
import "C"

import (
	"errors"
	"fmt"
	"unsafe"

	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/blas/blas64"
)

// Products adds products of matrices with the native ops library. It is safe for concurrent use and needs no ONNX Runtime.
type Products struct{ functions C.product_functions }

// OpenProducts loads the native ops library at path, which then stays loaded. It fails with an error that wraps
// [ErrUnavailable].
func OpenProducts(path string) (*Products, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	p := &Products{}
	var msg *C.char
	if C.open_products(name, &p.functions, &msg) != 0 {
		return nil, libraryFails("native ops library: %s: %s", path, C.GoString(msg))
	}
	// The environment may ask for an instruction set that the processor lacks: then no product works, and the first tells.
	if err := p.Add(blas32.General{}, blas32.General{}, blas32.General{}); err != nil {
		return nil, libraryFails("native ops library: %s: %w", path, err)
	}
	return p, nil
}

// Add adds a·b to c. Every entry takes its products in the order of a's columns, each rounded before it is added, so the
// result is the same to the bit on every processor.
func (p *Products) Add(c, a, b blas32.General) error {
	of := func(m blas32.General) extent { return extent{m.Rows, m.Cols, m.Stride, len(m.Data)} }
	if err := checkProduct(of(c), of(a), of(b)); err != nil {
		return err
	}
	return accepted(C.call_add(&p.functions, (*C.float)(unsafe.SliceData(c.Data)), C.int64_t(c.Stride),
		(*C.float)(unsafe.SliceData(a.Data)), C.int64_t(a.Stride), (*C.float)(unsafe.SliceData(b.Data)), C.int64_t(b.Stride),
		C.int64_t(c.Rows), C.int64_t(a.Cols), C.int64_t(c.Cols)))
}

// AddDouble is Add for float64.
func (p *Products) AddDouble(c, a, b blas64.General) error {
	of := func(m blas64.General) extent { return extent{m.Rows, m.Cols, m.Stride, len(m.Data)} }
	if err := checkProduct(of(c), of(a), of(b)); err != nil {
		return err
	}
	return accepted(C.call_add_double(&p.functions, (*C.double)(unsafe.SliceData(c.Data)), C.int64_t(c.Stride),
		(*C.double)(unsafe.SliceData(a.Data)), C.int64_t(a.Stride), (*C.double)(unsafe.SliceData(b.Data)), C.int64_t(b.Stride),
		C.int64_t(c.Rows), C.int64_t(a.Cols), C.int64_t(c.Cols)))
}

// extent is the shape of a matrix and the length of its data.
type extent struct{ rows, cols, stride, length int }

// fits reports whether a matrix lies within its data.
func (e extent) fits() bool {
	return e.rows >= 0 && e.cols >= 0 && e.stride >= e.cols && (e.rows == 0 || e.length >= (e.rows-1)*e.stride+e.cols)
}

func checkProduct(c, a, b extent) error {
	if a.rows != c.rows || b.rows != a.cols || b.cols != c.cols || !a.fits() || !b.fits() || !c.fits() {
		return fmt.Errorf("ort: add a product of %d × %d and %d × %d to %d × %d: the sizes do not fit", a.rows, a.cols, b.rows, b.cols, c.rows, c.cols)
	}
	return nil
}

func accepted(status C.int) error {
	if status != 0 {
		return errors.New("ort: the native ops library refuses the instruction set that the environment asks for")
	}
	return nil
}
