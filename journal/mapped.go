package journal

import (
	"errors"
	"sync"
)

// view is a file in memory.
type view struct {
	data    []byte
	release func() // lets the system take the memory back until it is read again
	close   func() error
}

// mappings are the views that were handed out.
type mappings struct {
	sync.Mutex
	views []view
}

func (m *mappings) add(v view) {
	m.Lock()
	defer m.Unlock()
	m.views = append(m.views, v)
}

func (m *mappings) close() error {
	m.Lock()
	defer m.Unlock()
	var errs []error
	for _, v := range m.views {
		errs = append(errs, v.close())
	}
	m.views = nil
	return errors.Join(errs...)
}
