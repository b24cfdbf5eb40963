package calib_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/cosetq/cosetq/calib"
)

var update = flag.Bool("update", false, "write the files that the tests compare with")

// exact are statistics whose numbers float32 holds exactly.
func exact() *calib.Statistics {
	full := sampled{rows: [][]float64{{1, -2, 0.5}, {3, 0, -0.25}}, columns: 3, full: true}.observation("x", "w0", "w1")
	full.Weight, full.BadRows = 1, 7
	diagonal := sampled{rows: [][]float64{{4, -1}, {0, 2}}, columns: 2}.observation("y", "w2")
	diagonal.Weight = 0.5
	s := statistics(full, diagonal, sampled{columns: 2}.observation("z", "w3"))
	s.Shard = "1/4"
	return s
}

// A statistics file of version 1, written once and never again, is read to the same numbers for ever; and what is written
// today is the same file, or a format that needs a number of its own.
func TestCompat(t *testing.T) {
	path := filepath.Join("testdata", "compat", "v1.cqs")
	want := exact()
	written := save(t, want)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(written, path); err != nil {
			t.Fatal(err)
		}
		written = path
	}
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if now, err := os.ReadFile(written); err != nil || !bytes.Equal(now, old) {
		t.Errorf("%v; the file that is written is another than %s: raise the version, keep reading the old one, and add a file of the new one", err, path)
	}
	f := openStatistics(t, path)
	got := f.Statistics
	if got.Model != want.Model || got.Fingerprint != want.Fingerprint || got.Program != want.Program || got.Shard != want.Shard ||
		!reflect.DeepEqual(got.Data, want.Data) || len(got.Observations) != len(want.Observations) {
		t.Fatalf("read %+v, want %+v", got, want)
	}
	for i, w := range want.Observations {
		g := got.Observations[i]
		if g.Tag != w.Tag || g.Activation != w.Activation || !slices.Equal(g.Weights, w.Weights) || g.Columns != w.Columns || g.Rows != w.Rows ||
			g.BadRows != w.BadRows || g.Full != w.Full || g.Min != w.Min || g.Max != w.Max || g.Weight != w.Weight {
			t.Errorf("read %+v, want %+v", g, w)
		}
		sameMoments(t, g, w)
	}
}
