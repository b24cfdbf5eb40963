package onnx

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/cosetq/cosetq/internal/realpath"
	"github.com/cosetq/cosetq/internal/regularfile"
)

// document is the file behind a parsed model: its mapping and those of the
// external data that were looked at.
type document struct {
	path   string // "" when parsed from memory
	dir    string // where external data are looked for, "" when unknown
	data   []byte
	unmap  func() error
	info   os.FileInfo
	closed atomic.Bool

	mu       sync.Mutex
	external map[string]*mapping
	redirect map[string]string // locations that are elsewhere for now, while verifying
}

// mapping is a file in memory.
type mapping struct {
	path  string
	data  []byte
	unmap func() error
	info  os.FileInfo
}

// Open maps the model at path and parses its structure. Tensors are views into
// the mapping: nothing of them is read. External data are opened when a tensor
// is first looked at. Close the model when the last tensor has been used.
//
// The file must not be truncated or rewritten in place while it is open: see
// [Guard]. Replacing it by renaming, as [Model.Save] does, is fine.
//
// The error is a [*FormatError] when the file is no model, and wraps the error
// of the operating system when it cannot be read.
func Open(path string) (*Model, error) {
	path = realpath.Of(path)
	mp, err := mapFile(path)
	if err != nil {
		return nil, fmt.Errorf("onnx: cannot open the model: %w", err)
	}
	d := &document{path: path, dir: filepath.Dir(path), data: mp.data, unmap: mp.unmap, info: mp.info}
	var m *Model
	err = Guard(func() (err error) {
		m, err = parse(d)
		return err
	})
	if err != nil {
		d.close()
		return nil, err
	}
	return m, nil
}

// Parse parses a model held in memory. The model keeps views of data, which must
// not change afterwards. External data cannot be found until the folder they are
// in is named with [Model.SetDir].
func Parse(data []byte) (*Model, error) { return parse(&document{data: data}) }

func parse(d *document) (*Model, error) {
	m := new(Model)
	dec := decoder{doc: d}
	if err := dec.decode(m, d.data, 0, 0); err != nil {
		return nil, err
	}
	if m.Graph == nil {
		return nil, &FormatError{Path: d.path, Offset: -1, Err: ErrNotModel}
	}
	return m, nil
}

// Close unmaps the file of the model and of its external data. Every view of
// tensor data becomes invalid; reading one afterwards crashes the program, which
// the methods of [Tensor] guard against but a kept slice cannot. Closing a model
// that was not opened from a file, or twice, does nothing.
func (m *Model) Close() error {
	if m == nil || m.doc == nil {
		return nil
	}
	return m.doc.close()
}

// Path returns the file the model was opened from, or "".
func (m *Model) Path() string {
	if m.doc == nil {
		return ""
	}
	return m.doc.path
}

// SetDir names the folder in which the external data of a model from [Parse]
// lie. It must be called before tensors are looked at.
func (m *Model) SetDir(dir string) {
	if m.doc != nil {
		m.doc.dir = dir
	}
}

func (d *document) isClosed() bool { return d.closed.Load() }

func (d *document) close() error {
	if d.closed.Swap(true) {
		return nil
	}
	var first error
	if d.unmap != nil {
		first = d.unmap()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, mp := range d.external {
		if err := mp.unmap(); first == nil {
			first = err
		}
	}
	d.external = nil
	return first
}

// offset returns where b, a slice of the file, starts in it, or -1.
func (d *document) offset(b []byte) int64 {
	if d.isClosed() || len(b) == 0 || len(d.data) == 0 {
		return -1
	}
	return offsetIn(d.data, b)
}

// mapFile maps the regular file at path.
func mapFile(path string) (*mapping, error) {
	f, err := regularfile.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() != int64(int(info.Size())) {
		return nil, fmt.Errorf("%s: %d bytes do not fit the address space", path, info.Size())
	}
	mp := &mapping{path: path, info: info, data: []byte{}, unmap: func() error { return nil }}
	if info.Size() == 0 {
		return mp, nil // mapping nothing is an error on most systems
	}
	if mp.data, mp.unmap, err = mapOpen(f, int(info.Size())); err != nil {
		return nil, fmt.Errorf("cannot map %s: %w", path, err)
	}
	return mp, nil
}

// release tells the system that b will not be read soon, if b is a view of one
// of the mappings.
func (d *document) release(b []byte) {
	if len(b) == 0 || d.isClosed() {
		return
	}
	if d.info != nil && offsetIn(d.data, b) >= 0 {
		release(b)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, mp := range d.external {
		if offsetIn(mp.data, b) >= 0 {
			release(b)
			return
		}
	}
}

// Release tells the system that the data of t will not be read again soon, so
// that a run over all weights of a model does not pile them up in memory. The
// data stay readable. It does nothing for data that are not in a mapped file.
func (t *Tensor) Release() {
	if t.doc == nil || t.Data != nil {
		return
	}
	if b, err := t.rawBytes(); err == nil {
		t.doc.release(b)
	}
}
