package calib

import (
	"archive/zip"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/cosetq/cosetq/internal/regularfile"
)

// store is bytes that can be read at any place without being held in memory.
type store interface {
	io.ReaderAt
	io.Closer
}

// openFile opens a data file; its size is known without reading it.
func openFile(path string) (store, int64, error) {
	f, err := regularfile.Open(path)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// openUnpacked opens a file that may be gzipped. A gzipped one is unpacked into a temporary file that has no name, so
// that it takes no memory and vanishes with the process.
func openUnpacked(path string) (store, int64, error) {
	f, size, err := openFile(path)
	if err != nil || !strings.HasSuffix(path, ".gz") {
		return f, size, err
	}
	defer f.Close()
	z, err := gzip.NewReader(io.NewSectionReader(f, 0, size))
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", path, err)
	}
	return spool(path, z)
}

// openMember opens one file inside a zip archive in the same way.
func openMember(f *zip.File) (store, int64, error) {
	r, err := f.Open()
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", f.Name, err)
	}
	defer r.Close()
	return spool(f.Name, r)
}

// ErrTemporary says that there is no folder for temporary files, into which data is unpacked.
var ErrTemporary = errors.New("no temporary file can be made where TMPDIR says")

func spool(name string, r io.Reader) (store, int64, error) {
	tmp, err := os.CreateTemp("", "cosetq-data-*")
	if err != nil {
		return nil, 0, fmt.Errorf("unpack %s: %w: %w", name, ErrTemporary, err)
	}
	err = os.Remove(tmp.Name()) // the open file stays readable
	size, copyErr := io.Copy(tmp, r)
	if err := errors.Join(err, copyErr); err != nil {
		return nil, 0, errors.Join(fmt.Errorf("unpack %s: %w", name, err), tmp.Close())
	}
	return tmp, size, nil
}
