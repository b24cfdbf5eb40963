package calib

import (
	"os"
	"path/filepath"
	"sort"
	"sync"
)

// npzFiles reads the samples of several archives, one after the other in the order of their names. One is open at a time.
type npzFiles struct {
	recipe   *Recipe
	openFile func(path string, o Options) (Reader, error)
	paths    []string
	ends     []int // samples up to and with each file
	count    int

	mu     sync.Mutex
	at     int // the file that is open
	open   Reader
	closed bool
}

func openNPZFiles(r *Recipe, openFile func(path string, o Options) (Reader, error), pattern string, o Options) (Reader, error) {
	f := &npzFiles{recipe: r, openFile: openFile, at: -1}
	var err error
	if f.paths, err = filepath.Glob(pattern); err != nil {
		return nil, r.fail("file", "%q is no pattern: %w", r.File, err)
	}
	if len(f.paths) == 0 {
		return nil, r.fail("file", "%s matches no file", r.File)
	}
	total := 0
	for i := range f.paths {
		if err := f.choose(i); err != nil {
			return nil, err
		}
		total += f.open.Len()
		f.ends = append(f.ends, total)
	}
	f.count = limited(int64(total), o)
	return f, nil
}

// choose opens file i.
func (f *npzFiles) choose(i int) error {
	if i == f.at {
		return nil
	}
	if err := f.leave(); err != nil {
		return err
	}
	n, err := f.openFile(f.paths[i], Options{})
	if err != nil {
		return err
	}
	f.at, f.open = i, n
	return nil
}

func (f *npzFiles) Len() int     { return f.count }
func (f *npzFiles) Random() bool { return false }

func (f *npzFiles) Sample(i int) (*Sample, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, f.recipe.fail("file", "sample %d of %s: %w", i, f.recipe.File, os.ErrClosed)
	}
	file := sort.SearchInts(f.ends, i+1)
	if err := f.choose(file); err != nil {
		return nil, err
	}
	if file > 0 {
		i -= f.ends[file-1]
	}
	return f.open.Sample(i)
}

func (f *npzFiles) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return f.leave()
}

// leave closes the file that is open.
func (f *npzFiles) leave() error {
	if f.open == nil {
		return nil
	}
	err := f.open.Close()
	f.at, f.open = -1, nil
	return err
}
