package testenv

import "golang.org/x/sys/cpu"

// HasISA reports whether this processor has all instructions of one of cudaops.ISAs, found out without the native library. A test
// that skips what the library refuses asks it, so that a refusal by mistake fails the test. AMX is up to the kernel as well, which
// only the library asks.
func HasISA(isa string) bool {
	x := &cpu.X86
	avx2 := x.HasAVX2 && x.HasFMA
	switch isa {
	case "portable":
		return true
	case "avx2":
		return avx2
	case "avxvnni":
		return avx2 && x.HasAVXVNNI
	case "avx512":
		return x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL && x.HasAVX512VBMI && x.HasAVX512VNNI && x.HasAVX512GFNI
	}
	return false
}
