package cosetq

import "sync"

// Progress follows a long piece of work: done of the total units (rows, samples, bytes) of a stage are done. It is called
// from one goroutine at a time, often, and should return at once.
type Progress func(stage string, done, total int64)

// stage returns a function that counts the units of one stage, safe to be called from several goroutines.
func (p Progress) stage(name string, total int64) (step func(units int)) {
	if p == nil {
		return func(int) {}
	}
	var lock sync.Mutex
	var done int64
	p(name, 0, total)
	return func(units int) {
		lock.Lock()
		defer lock.Unlock()
		done += int64(units)
		p(name, done, total)
	}
}
