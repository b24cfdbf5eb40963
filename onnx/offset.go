package onnx

import "unsafe"

// offsetIn returns where b starts in data, or -1 when it is not a part of it.
func offsetIn(data, b []byte) int64 {
	start := uintptr(unsafe.Pointer(unsafe.SliceData(data)))
	at := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	if at < start || at-start >= uintptr(len(data)) {
		return -1
	}
	return int64(at - start)
}
