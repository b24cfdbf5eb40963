package onnx

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cosetq/cosetq/internal/realpath"
)

// SaveOptions says how [Model.Save] lays out a model. The zero value is good.
type SaveOptions struct {
	// External decides which tensors go to the file beside the model.
	External ExternalMode
	// ExternalThreshold is the size in bytes from which a tensor goes there; 0
	// stands for 1024. Tensors that are external already go there at any size.
	ExternalThreshold int64
	// DataName is the name of that file; "" stands for the name of the model
	// with ".data" appended.
	DataName string
	// Overwrite allows to replace existing files. A data file that an older model
	// of the same name had, and the new one does not need, is left alone.
	Overwrite bool
	// Context cancels the writing; nil stands for never.
	Context context.Context
	// Progress, if set, is called now and then with the bytes written so far
	// and the bytes in all.
	Progress func(written, total int64)
	// TempDir, if set, is where the files lie until they are complete: a folder
	// of the same file system as the model.
	TempDir string
	// BeforePlace, if set, is called when the files are complete and verified,
	// before they get their names. Its error stops that.
	BeforePlace func([]SavedFile) error
}

// ExternalMode decides which tensors are stored beside the model.
type ExternalMode int

const (
	// ExternalAuto is ExternalAlways when the model has external data already or
	// would be 1 GiB or more in one piece, half of what protobuf allows, and
	// leaves the data in the model otherwise.
	ExternalAuto ExternalMode = iota
	// ExternalAlways moves initializers from the threshold on to one file beside
	// the model. Tensors in attributes stay, as few runtimes look for their data elsewhere.
	ExternalAlways
	// ExternalNever writes one file, which must stay below 2 GiB.
	ExternalNever
)

const (
	defaultThreshold = 1 << 10
	autoLimit        = 1 << 30
	protobufLimit    = 1<<31 - 1
	// Tensors of pagedFrom bytes or more stand first in the external file, each at
	// a multiple of pageAlign: the pages of a mapping then hold one of them alone.
	// A page for each smaller one would be mostly zeros, so these follow, at
	// multiples of lineAlign: a cache line, as the memory of runtimes is aligned.
	pagedFrom = 64 << 10
	pageAlign = 4096
	lineAlign = 64
)

// SavedFile is a file written by [Model.Save].
type SavedFile struct {
	Path   string
	Bytes  int64
	SHA256 string // in hexadecimal
}

// Save writes the model to path and, where the options ask for it, the data of
// its tensors to one file beside it: first those of 64 KiB or more, each at a
// multiple of 4096 bytes, then the smaller ones at multiples of 64. It returns
// the files written, the model first. The model in memory is not changed.
//
// Data are streamed: the heap needed does not grow with the weights. Both files
// are written under temporary names in the folder of path, flushed to disk,
// opened again and verified, and only then renamed, the data first. On any error
// nothing is left behind and existing files are as they were.
//
// Errors wrap [fs.ErrExist] when a file exists and Overwrite is not set,
// [ErrSameFile] when the model is being read from a file it would replace (write
// to another name, then rename), [ErrTooLarge], [ErrVerify], [ErrChanged], the error of the
// context, or that of the operating system, such as syscall.ENOSPC.
func (m *Model) Save(path string, opt SaveOptions) ([]SavedFile, error) {
	s := newSaver(m, path, opt)
	var files []SavedFile
	err := Guard(func() (err error) {
		files, err = s.save()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("onnx: cannot save %s: %w", path, err)
	}
	return files, nil
}

// SavedBytes returns the size that all files together would have if the model were saved.
func (m *Model) SavedBytes(path string, opt SaveOptions) (int64, error) {
	s := newSaver(m, path, opt)
	if err := Guard(s.plan); err != nil {
		return 0, fmt.Errorf("onnx: %s cannot be saved: %w", path, err)
	}
	return s.enc.size + s.dataEnd, nil
}

// saver is one run of Save.
type saver struct {
	m        *Model
	opt      SaveOptions
	ctx      context.Context
	path     string
	dir      string
	dataName string

	enc     encoder
	entries []dataEntry // in the order of their offsets
	dataEnd int64
	docs    map[*document]bool // files that tensors are read from

	written, total int64
}

// dataEntry is a tensor in the external file.
type dataEntry struct {
	tensor *Tensor
	offset int64
	size   int64
}

func newSaver(m *Model, path string, opt SaveOptions) *saver {
	path = realpath.Of(path)
	s := &saver{m: m, opt: opt, path: path, dir: filepath.Dir(path), ctx: opt.Context, dataName: opt.DataName}
	if s.ctx == nil {
		s.ctx = context.Background()
	}
	if s.dataName == "" {
		s.dataName = filepath.Base(path) + ".data"
	}
	return s
}

func (s *saver) save() (files []SavedFile, err error) {
	if filepath.Base(s.dataName) != s.dataName || s.dataName == filepath.Base(s.path) || !filepath.IsLocal(s.dataName) {
		return nil, fmt.Errorf("%w: DataName %q must be a plain file name other than that of the model", ErrLocation, s.dataName)
	}
	if err := s.plan(); err != nil {
		return nil, err
	}
	if s.enc.size > protobufLimit {
		return nil, fmt.Errorf("%w: %d bytes without external data; use ExternalAlways or a lower ExternalThreshold", ErrTooLarge, s.enc.size)
	}
	s.total = s.enc.size + s.dataEnd
	if err := s.checkTarget(s.path); err != nil {
		return nil, err
	}
	var outs []*output
	defer func() {
		for _, o := range outs {
			o.discard()
		}
	}()
	model, err := s.create(s.path)
	if err != nil {
		return nil, err
	}
	outs = append(outs, model)
	var data *output
	if len(s.entries) > 0 {
		dataPath := filepath.Join(s.dir, s.dataName)
		if err := s.checkTarget(dataPath); err != nil {
			return nil, err
		}
		if data, err = s.create(dataPath); err != nil {
			return nil, err
		}
		outs = append(outs, data)
		if err := data.finish(s.writeData(data)); err != nil {
			return nil, err
		}
	}
	if err := model.finish(s.writeModel(model)); err != nil {
		return nil, err
	}
	if err := s.verify(model, data); err != nil {
		return nil, err
	}
	if err := s.ctx.Err(); err != nil {
		return nil, err
	}
	for d := range s.docs {
		if err := d.changed(); err != nil {
			return nil, err
		}
	}
	for _, o := range outs {
		files = append(files, SavedFile{Path: o.path, Bytes: o.n, SHA256: hex.EncodeToString(o.sum)})
	}
	if s.opt.BeforePlace != nil {
		if err := s.opt.BeforePlace(files); err != nil {
			return nil, err
		}
	}
	return files, s.place(model, data)
}

// CheckTargets makes the checks of [Model.Save] that look at what stands at path and, when external is set, at the file
// beside it: whether they may be replaced. It lets a long work fail before it begins.
func (m *Model) CheckTargets(path string, opt SaveOptions, external bool) error {
	s := newSaver(m, path, opt)
	s.docs = map[*document]bool{}
	if m.doc != nil {
		s.docs[m.doc] = true
	}
	for r := range m.Tensors() {
		if t := r.Tensor; t.doc != nil && t.IsExternal() {
			s.docs[t.doc] = true
			if _, err := t.RawBytes(); err != nil {
				return err // its file has to be open to be compared
			}
		}
	}
	err := s.checkTarget(s.path)
	if err == nil && external {
		err = s.checkTarget(filepath.Join(s.dir, s.dataName))
	}
	if err != nil {
		return fmt.Errorf("onnx: cannot save %s: %w", path, err)
	}
	return nil
}

// checkTarget refuses to replace what must not be replaced.
func (s *saver) checkTarget(path string) error {
	info, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // it could not be written either
	}
	if err != nil {
		// A dangling link would be replaced by renaming as a file would.
		if _, lerr := os.Lstat(path); lerr == nil && !s.opt.Overwrite {
			return fmt.Errorf("%s: %w", path, fs.ErrExist)
		}
		return nil
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s: %w", path, ErrNotFile)
	}
	for d := range s.docs {
		if d.reads(info) {
			return fmt.Errorf("%s: %w; write to another name", path, ErrSameFile)
		}
	}
	if !s.opt.Overwrite {
		return fmt.Errorf("%s: %w", path, fs.ErrExist)
	}
	return nil
}

// reads reports whether the document maps the file.
func (d *document) reads(info os.FileInfo) bool {
	if d.info != nil && os.SameFile(d.info, info) {
		return true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, mp := range d.external {
		if os.SameFile(mp.info, info) {
			return true
		}
	}
	return false
}

// tempFile is what Save needs of a file.
type tempFile interface {
	io.Writer
	Sync() error
	Close() error
}

// createFile makes a new file. It is a variable so that tests can fill the disk.
var createFile = func(path string) (tempFile, error) {
	// The permissions are those of any new file, not the narrow ones of os.CreateTemp.
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
}

// writeData streams the external file.
func (s *saver) writeData(o *output) error {
	w := &pageDropper{bufio.NewWriterSize(o, 256<<10), s.docs}
	var at int64
	zero := make([]byte, pageAlign)
	for _, e := range s.entries {
		n, err := w.Write(zero[:e.offset-at])
		if err != nil {
			return err
		}
		at += int64(n)
		size, err := e.tensor.WriteRaw(w)
		if err != nil {
			return fmt.Errorf("tensor %q: %w", e.tensor.Name, err)
		}
		if size != e.size {
			return fmt.Errorf("tensor %q: %w: %d bytes written, %d planned", e.tensor.Name, ErrTensorSize, size, e.size)
		}
		at += size
	}
	return w.Flush()
}

// writeModel streams the protobuf file.
func (s *saver) writeModel(o *output) error {
	w := &pageDropper{bufio.NewWriterSize(o, 256<<10), s.docs}
	if _, err := s.enc.writeTo(w); err != nil {
		return err
	}
	return w.Flush()
}

// pageDropper buffers small writes and lets the system drop the pages of mapped
// files that have been written, so that saving a model does not pile it up in memory.
type pageDropper struct {
	*bufio.Writer
	docs map[*document]bool
}

func (p *pageDropper) done(b []byte) {
	for d := range p.docs {
		d.release(b)
	}
}
