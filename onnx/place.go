package onnx

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cosetq/cosetq/internal/atomicfile"
)

// verify opens what was written, compares its checksum with that of the bytes
// handed to the system, and walks every tensor.
func (s *saver) verify(model, data *output) error {
	for _, o := range []*output{model, data} {
		if o == nil {
			continue
		}
		if err := s.verifySum(o); err != nil {
			return err
		}
	}
	mp, err := mapFile(model.tmp)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrVerify, err)
	}
	d := &document{path: model.tmp, dir: s.dir, data: mp.data, unmap: mp.unmap}
	defer d.close()
	if data != nil {
		d.redirect = map[string]string{s.dataName: data.tmp}
	}
	got, err := parse(d)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrVerify, err)
	}
	var wrote []TensorRef
	for r := range s.m.Tensors() {
		wrote = append(wrote, r)
	}
	i := 0
	for r := range got.Tensors() {
		if i == len(wrote) {
			return fmt.Errorf("%w: more tensors than were written", ErrVerify)
		}
		w := wrote[i].Tensor
		if r.Tensor.Name != w.Name || r.Tensor.DataType != w.DataType || !slices.Equal(r.Tensor.Dims, w.Dims) {
			return fmt.Errorf("%w: %s differs", ErrVerify, wrote[i].Where())
		}
		if r.Tensor.DataType.known() {
			if err := r.Tensor.Validate(); err != nil {
				return fmt.Errorf("%w: %w", ErrVerify, err)
			}
		}
		i++
	}
	if i != len(wrote) {
		return fmt.Errorf("%w: %d tensors of %d", ErrVerify, i, len(wrote))
	}
	return nil
}

func (s *saver) verifySum(o *output) error {
	f, err := os.Open(o.tmp)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrVerify, err)
	}
	defer f.Close()
	h := sha256.New()
	buf := make([]byte, 256<<10)
	var n int64
	for {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		k, err := f.Read(buf)
		h.Write(buf[:k])
		n += int64(k)
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrVerify, err)
		}
	}
	if n != o.n || !bytes.Equal(h.Sum(nil), o.sum) {
		return fmt.Errorf("%w: %s has another checksum than the data written to it; the disk or the file system is at fault", ErrVerify, filepath.Base(o.path))
	}
	return nil
}

// place gives the files their names, the data first: a model is never visible
// before its data are.
func (s *saver) place(model, data *output) error {
	undo := func() error { return nil }
	if data != nil {
		undo = func() error { return os.Remove(data.path) }
		if _, err := os.Lstat(data.path); err == nil {
			if !s.opt.Overwrite {
				return fmt.Errorf("%s: %w", data.path, fs.ErrExist)
			}
			// The old data belong to the old model, which stays if renaming the new one fails.
			backup := data.tmp + ".old"
			if err := keep(data.path, backup); err != nil {
				return err
			}
			defer os.Remove(backup)
			undo = func() error { return os.Rename(backup, data.path) }
			if err := s.rename(data); err != nil {
				return errors.Join(err, undo())
			}
		} else if err := s.rename(data); err != nil {
			return err
		}
	}
	if err := s.rename(model); err != nil {
		return errors.Join(err, undo())
	}
	atomicfile.SyncDir(s.dir)
	return nil
}

// keep gives a file a second name or, on file systems without links, moves it there.
func keep(path, backup string) error {
	if os.Link(path, backup) == nil {
		return nil
	}
	return os.Rename(path, backup)
}

// rename moves an output to its name. Without Overwrite that must not replace a
// file which somebody made meanwhile, so it links, which fails when the name exists.
func (s *saver) rename(o *output) error {
	if !s.opt.Overwrite {
		err := os.Link(o.tmp, o.path)
		if err == nil {
			os.Remove(o.tmp)
			o.tmp = ""
			return nil
		}
		if errors.Is(err, fs.ErrExist) {
			return err
		}
		// Some file systems have no links.
		if _, err := os.Lstat(o.path); err == nil {
			return fmt.Errorf("%s: %w", o.path, fs.ErrExist)
		}
	}
	if err := os.Rename(o.tmp, o.path); err != nil {
		return err
	}
	o.tmp = ""
	return nil
}
