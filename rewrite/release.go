package rewrite

// Release tells the system that the data of W will not be read again soon, so that a run over all weights of a model does
// not pile them up in memory. They stay readable.
func (w *Weight) Release() {
	if t := w.root.Initializer; t != nil {
		t.Release()
	}
}
