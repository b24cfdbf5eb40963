//go:build !unix

package journal

import "os"

func mapFile(path string) (view, error) {
	b, err := os.ReadFile(path)
	return view{data: b, release: func() {}, close: func() error { return nil }}, err
}
