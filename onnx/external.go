package onnx

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
)

// ExternalRef says where the data of an external tensor lie.
type ExternalRef struct {
	Location string // relative to the folder of the model
	Offset   int64  // bytes from the start of the file
	Length   int64  // bytes, -1 when the file does not say: then what shape and type need
}

// External parses where the data of an external tensor lie. The error is a
// [*FormatError] when the tensor is not external or an entry is malformed; the
// location is not judged before the data are read.
func (t *Tensor) External() (ExternalRef, error) {
	r, err := t.external()
	if err != nil {
		return r, t.fail(err)
	}
	return r, nil
}

// ExternalPath is the file that the data of an external tensor lie in, which need not be there. The error is a [*FormatError] as that
// of [Tensor.External], and wraps [ErrLocation] where that is not in the folder of the model.
func (t *Tensor) ExternalPath() (string, error) {
	r, err := t.external()
	if err != nil {
		return "", t.fail(err)
	}
	path, err := t.doc.locate(r.Location)
	if err != nil {
		return "", t.fail(err)
	}
	return path, nil
}

func (t *Tensor) external() (ExternalRef, error) {
	r := ExternalRef{Length: -1}
	if t.DataLocation != LocationExternal {
		return r, errors.New("its data are not external")
	}
	for _, e := range t.ExternalData {
		if e == nil {
			continue
		}
		var err error
		switch e.Key {
		case "location":
			r.Location = e.Value
		case "offset":
			r.Offset, err = strconv.ParseInt(e.Value, 10, 64)
		case "length":
			r.Length, err = strconv.ParseInt(e.Value, 10, 64)
			if err == nil && r.Length < 0 {
				err = errors.New("negative")
			}
		}
		if err != nil {
			return r, fmt.Errorf("%w: %s %q is no number of bytes", ErrLocation, e.Key, e.Value)
		}
	}
	if r.Location == "" {
		return r, fmt.Errorf("%w: it names no file (key \"location\")", ErrLocation)
	}
	if r.Offset < 0 {
		return r, fmt.Errorf("%w: negative offset %d", ErrLocation, r.Offset)
	}
	return r, nil
}

// externalBytes returns the want bytes of an external tensor.
func (t *Tensor) externalBytes(want int64) ([]byte, error) {
	r, err := t.external()
	if err != nil {
		return nil, err
	}
	if r.Length >= 0 && r.Length != want {
		return nil, fmt.Errorf("%w: %v %v needs %d bytes, the external length is %d", ErrTensorSize, t.DataType, short(t.Dims), want, r.Length)
	}
	if t.doc == nil {
		return nil, errNoDir
	}
	mp, err := t.doc.openExternal(r.Location)
	if err != nil {
		return nil, err
	}
	if size := int64(len(mp.data)); r.Offset > size || want > size-r.Offset {
		return nil, fmt.Errorf("%w: bytes %d to %d of %s are asked for, which has %d; the file is truncated or belongs to another model",
			ErrTensorSize, r.Offset, r.Offset+want, r.Location, size)
	}
	return mp.data[r.Offset : r.Offset+want : r.Offset+want], nil
}

// openExternal maps a file of external data, once.
func (d *document) openExternal(location string) (*mapping, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed.Load() {
		return nil, ErrClosed
	}
	if mp := d.external[location]; mp != nil {
		return mp, nil
	}
	path, err := d.locate(location)
	if err != nil {
		return nil, err
	}
	mp, err := mapFile(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("external data file %s is missing: %w", location, err)
		}
		return nil, fmt.Errorf("cannot open external data: %w", err)
	}
	if d.external == nil {
		d.external = make(map[string]*mapping)
	}
	d.external[location] = mp
	return mp, nil
}

var errNoDir = fmt.Errorf("%w: the folder of the model is not known; open it by path, or call SetDir", ErrLocation)

// locate finds the file of a location.
func (d *document) locate(location string) (string, error) {
	if d == nil || d.dir == "" {
		return "", errNoDir
	}
	if path, ok := d.redirect[location]; ok {
		return path, nil
	}
	return d.resolve(location)
}

// resolve turns a location into a path that provably lies in the folder of the
// model. A model must not make its reader read, say, /etc/passwd into an output.
func (d *document) resolve(location string) (string, error) {
	if strings.ContainsRune(location, 0) {
		return "", fmt.Errorf("%w: %q", ErrLocation, location)
	}
	local := filepath.FromSlash(location)
	if filepath.IsAbs(local) || strings.HasPrefix(location, "/") {
		return "", fmt.Errorf("%w: %q is absolute; only paths relative to the model are", ErrLocation, location)
	}
	if !filepath.IsLocal(local) {
		return "", fmt.Errorf("%w: %q leads out of the folder of the model", ErrLocation, location)
	}
	path := filepath.Join(d.dir, local)
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return path, nil // reported with more context by opening it
		}
		return "", fmt.Errorf("%w: %q: %w", ErrLocation, location, err)
	}
	// Where the model itself is a symbolic link, as in the cache of a model hub,
	// the folder of its target counts as well.
	homes := []string{d.dir}
	if d.path != "" {
		if target, err := filepath.EvalSymlinks(d.path); err == nil {
			homes = append(homes, filepath.Dir(target))
		}
	}
	for _, home := range homes {
		home, err := filepath.EvalSymlinks(home)
		if err != nil {
			continue
		}
		if rel, err := filepath.Rel(home, real); err == nil && filepath.IsLocal(rel) {
			return real, nil
		}
	}
	return "", fmt.Errorf("%w: %q is a link that leads out of the folder of the model, to %s", ErrLocation, location, real)
}
