package onnx

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// output is a file being written under a temporary name.
type output struct {
	s    *saver
	f    tempFile
	path string // the name it is to have
	tmp  string // the name it has, "" when it has been renamed or removed
	hash hash.Hash
	sum  []byte
	n    int64
}

// maxTempName bounds what a temporary name takes of the file's own, which may be as long as file systems allow.
const maxTempName = 200

func (s *saver) create(path string) (*output, error) {
	dir := s.opt.TempDir
	if dir == "" {
		dir = s.dir
	}
	name := filepath.Base(path)
	name = strings.ToValidUTF8(name[:min(len(name), maxTempName)], "")
	for try := 0; ; try++ {
		tmp := filepath.Join(dir, fmt.Sprintf(".%s.%08x.tmp", name, rand.Uint32()))
		f, err := createFile(tmp)
		if errors.Is(err, fs.ErrExist) && try < 100 {
			continue
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("the folder %s does not exist: %w", dir, err)
		}
		if err != nil {
			return nil, err
		}
		return &output{s: s, f: f, path: path, tmp: tmp, hash: sha256.New()}, nil
	}
}

// Write adds to the file, its checksum and the progress.
func (o *output) Write(b []byte) (int, error) {
	if err := o.s.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := o.f.Write(b)
	o.hash.Write(b[:n])
	o.n += int64(n)
	o.s.written += int64(n)
	if o.s.opt.Progress != nil {
		o.s.opt.Progress(o.s.written, o.s.total)
	}
	return n, err
}

// finish flushes the file to disk and closes it, unless err says that writing failed.
func (o *output) finish(err error) error {
	if err == nil {
		err = o.f.Sync()
	}
	if cerr := o.f.Close(); err == nil {
		err = cerr
	}
	o.f = nil
	o.sum = o.hash.Sum(nil)
	return err
}

// discard removes the file if it still has its temporary name.
func (o *output) discard() {
	if o.f != nil {
		o.f.Close()
	}
	if o.tmp != "" {
		os.Remove(o.tmp)
	}
}
