package onnx

import (
	"fmt"
	"os"
	"runtime/debug"
)

// Guard runs f and turns its fault on a page of a mapped file that somebody
// truncated meanwhile into an [ErrChanged]; without it such a fault ends the
// program. It guards the calling goroutine alone. [Open] and [Model.Save] are
// guarded; other code that reads the tensors of a file should be.
func Guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch r := recover().(type) {
		case nil:
		case interface{ Addr() uintptr }: // a fault, see debug.SetPanicOnFault
			err = fmt.Errorf("onnx: %w: a part of it is gone", ErrChanged)
		default:
			panic(r)
		}
	}()
	return f()
}

// Changed tells whether the file that the model was read from, or one of the
// external data that were looked at, is no longer what it was when it was
// opened: the error is nil or wraps [ErrChanged]. Tensors taken over from
// another model are not covered.
func (m *Model) Changed() error {
	if m.doc == nil {
		return nil
	}
	return m.doc.changed()
}

func (d *document) changed() error {
	if d.path != "" && d.info != nil {
		if err := unchanged(d.path, d.info); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, mp := range d.external {
		if err := unchanged(mp.path, mp.info); err != nil {
			return err
		}
	}
	return nil
}

// unchanged compares the file that path names with what it was. A file that was replaced by renaming is as good as
// the old one, which stays mapped.
func unchanged(path string, was os.FileInfo) error {
	is, err := os.Stat(path)
	if err != nil || !os.SameFile(was, is) {
		return nil
	}
	if is.Size() != was.Size() || !is.ModTime().Equal(was.ModTime()) {
		return fmt.Errorf("%s: %w", path, ErrChanged)
	}
	return nil
}
