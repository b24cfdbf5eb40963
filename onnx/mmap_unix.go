//go:build unix && !nommap

package onnx

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapped: files are views, not copies.
const mapped = true

// mapOpen maps the first size bytes of f for reading.
func mapOpen(f *os.File, size int) ([]byte, func() error, error) {
	b, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, err
	}
	return b, func() error { return unix.Munmap(b) }, nil
}

// release tells the system that b, a view into a mapping, will not be read
// again soon, so that a run over all weights does not pile them up in memory.
func release(b []byte) {
	page := uintptr(os.Getpagesize())
	if uintptr(len(b)) < 2*page {
		return
	}
	start := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	skip := (page - start%page) % page
	n := (uintptr(len(b)) - skip) / page * page
	if n > 0 {
		_ = unix.Madvise(b[skip:skip+n], unix.MADV_DONTNEED) // only advice
	}
}
