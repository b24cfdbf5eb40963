//go:build unix

package journal

import (
	"os"

	"golang.org/x/sys/unix"
)

func mapFile(path string) (view, error) {
	f, err := os.Open(path)
	if err != nil {
		return view{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return view{}, err
	}
	if info.Size() == 0 {
		return view{release: func() {}, close: func() error { return nil }}, nil
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return view{}, err
	}
	return view{
		data:    b,
		release: func() { _ = unix.Madvise(b, unix.MADV_DONTNEED) }, // only advice
		close:   func() error { return unix.Munmap(b) },
	}, nil
}
