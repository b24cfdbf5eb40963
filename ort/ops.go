//go:build cgo && linux

package ort

/*
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

typedef const char *(*textFn)(void);
typedef int64_t (*countFn)(const char *);
static const char *call_text(void *f) { return ((textFn)f)(); }
static int64_t call_count(void *f, const char *name) { return ((countFn)f)(name); }
*/
import "C"

import "unsafe"

// OpsLibrary is the native ops library, asked about itself. Sessions that have it registered share it with this view.
type OpsLibrary struct {
	isa, calls, agreed unsafe.Pointer
}

// OpenOps loads the native ops library, which then stays loaded.
func OpenOps(path string) (*OpsLibrary, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	handle := C.dlopen(name, C.RTLD_NOW)
	if handle == nil {
		return nil, libraryFails("native ops library: %s", C.GoString(C.dlerror()))
	}
	symbol := func(name string) unsafe.Pointer {
		s := C.CString(name)
		defer C.free(unsafe.Pointer(s))
		return C.dlsym(handle, s)
	}
	l := &OpsLibrary{isa: symbol("cosetq_isa"), calls: symbol("cosetq_kernel_calls"), agreed: symbol("cosetq_interface")}
	if l.isa == nil || l.calls == nil {
		return nil, libraryFails("native ops library %s tells nothing about itself; build it anew with `make build`", path)
	}
	return l, nil
}

// Interface identifies the header that the library was built with, as cudaops.Interface does that of this program; "" for a
// library from before there was such a thing.
func (l *OpsLibrary) Interface() string {
	if l.agreed == nil {
		return ""
	}
	return C.GoString(C.call_text(l.agreed))
}

// ISA is the instruction set whose kernels run: portable, avx2, avxvnni, avx512 or amx.
func (l *OpsLibrary) ISA() string { return C.GoString(C.call_text(l.isa)) }

// KernelCalls counts the runs of a kernel since the library was loaded, such as avx512.lookup; −1 when there is none of
// that name.
func (l *OpsLibrary) KernelCalls(name string) int64 {
	s := C.CString(name)
	defer C.free(unsafe.Pointer(s))
	return int64(C.call_count(l.calls, s))
}
