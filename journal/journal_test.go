package journal

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/internal/atomicfile"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/quant"
)

var settings = Settings{"codec": "d4:4,4", "method": "rtn"}

type dense struct {
	n, k int
	v    []float32
}

func (d dense) Dims() (n, k int) { return d.n, d.k }
func (d dense) Rows(dst []float32, n0, n1 int) error {
	copy(dst, d.v[n0*d.k:n1*d.k])
	return nil
}
func (d dense) Columns() bool { return false }
func (d dense) Numbers(dst []float32, from int64) error {
	copy(dst, d.v[from:])
	return nil
}

// byColumns is a weight that is stored so.
type byColumns struct{ dense }

func (byColumns) Columns() bool { return true }

// weight returns a weight of n × k and its code.
func weight(t testing.TB, codec string, n, k int) (dense, *quant.Matrix) {
	t.Helper()
	w := dense{n, k, make([]float32, n*k)}
	for i := range w.v {
		w.v[i] = float32((i*7919)%1013-506) / 300
	}
	c, err := lattice.ParseCodec(codec)
	if err != nil {
		t.Fatal(err)
	}
	res, err := quant.Quantize(t.Context(), w, quant.Options{Codec: c, Rotation: quant.NewRotation(k, 5)})
	if err != nil {
		t.Fatal(err)
	}
	return w, res.Matrix
}

func create(t testing.TB) *Journal {
	t.Helper()
	j, err := Create(filepath.Join(t.TempDir(), "j"), settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func TestRoundTrip(t *testing.T) {
	j := create(t)
	if !j.Empty() {
		t.Error("a new journal is not empty")
	}
	for _, codec := range []string{"d4:4,4:g3,4,5,6", "e8:2,3", "z2:3,5"} {
		for _, k := range []int{64, 33} {
			_, m := weight(t, codec, 30, k)
			name := codec + "/ü\x00\xff of any name"
			if err := j.Put(name, Layer{Source: "s", Meta: []byte(`{"a":1}`), Matrix: m}); err != nil {
				t.Fatal(err)
			}
			again, err := Open(j.Dir())
			if err != nil {
				t.Fatal(err)
			}
			l, err := again.Get(name)
			if err != nil || l == nil || l.Source != "s" || string(l.Meta) != `{"a":1}` {
				t.Fatalf("%+v, %v", l, err)
			}
			got := *l.Matrix
			if got.Release == nil {
				t.Error("the memory of a mapped matrix cannot be given back")
			}
			got.Release()
			if got.Codec.String() != m.Codec.String() {
				t.Errorf("codec %v", got.Codec)
			}
			got.Release, got.Codec = nil, m.Codec
			if !reflect.DeepEqual(&got, m) {
				t.Errorf("%s: it reads back differently", codec)
			}
			if err := again.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if j.Empty() {
		t.Error("it is empty")
	}
	if l, err := j.Get("never put"); l != nil || err != nil {
		t.Errorf("%v, %v", l, err)
	}
	if err := j.Put("no matrix", Layer{Source: "s", Meta: []byte(`{}`)}); err != nil {
		t.Fatal(err)
	}
	if l, err := j.Get("no matrix"); err != nil || l == nil || l.Matrix != nil {
		t.Errorf("%v, %v", l, err)
	}
	if err := j.Remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(j.Dir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder stays: %v", err)
	}
}

func TestSettings(t *testing.T) {
	j := create(t)
	if _, err := Create(j.Dir(), settings); !errors.Is(err, fs.ErrExist) {
		t.Errorf("begun twice: %v", err)
	}
	if _, err := Open(t.TempDir()); !errors.Is(err, ErrNoJournal) {
		t.Errorf("no journal: %v", err)
	}
	again, err := Open(j.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Require(settings); err != nil {
		t.Error(err)
	}
	for _, tt := range []struct {
		now  Settings
		want MismatchError
	}{
		{Settings{"codec": "e8:3", "method": "rtn"}, MismatchError{"codec", "d4:4,4", "e8:3"}},
		{Settings{"method": "rtn"}, MismatchError{"codec", "d4:4,4", ""}},
		{Settings{"codec": "d4:4,4", "method": "rtn", "seed": "7"}, MismatchError{"seed", "", "7"}},
	} {
		var got *MismatchError
		if err := again.Require(tt.now); !errors.As(err, &got) || *got != tt.want {
			t.Errorf("%v: %v, want %v", tt.now, err, tt.want)
		}
	}
}

// Remains of killed processes are no results.
func TestRemains(t *testing.T) {
	j := create(t)
	if _, err := j.write(layerName("w"), []byte("half")); err != nil {
		t.Fatal(err)
	}
	if l, err := j.Get("w"); l != nil || err != nil || !j.Empty() {
		t.Errorf("%v, %v", l, err)
	}
	// A folder whose process was killed before it had written the settings.
	dir := filepath.Join(t.TempDir(), "j")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(dir, settings); err != nil {
		t.Error(err)
	}
	// One whose process is just writing them: what it would leave is no stranger's file.
	dir = t.TempDir()
	err := atomicfile.WriteNew(filepath.Join(dir, settingsName), 0o666, func(*os.File) error {
		_, err := Create(dir, settings)
		return err
	})
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("another process was faster: %v", err)
	}
}

// Every flipped bit and every cut is noticed.
func TestDamage(t *testing.T) {
	j := create(t)
	_, m := weight(t, "d4:4", 8, 16)
	if err := j.Put("w", Layer{Source: "s", Meta: []byte(`{}`), Matrix: m}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(j.Dir(), layerName("w"))
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, at int, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		var damaged *DamagedError
		if l, err := j.Get("w"); !errors.As(err, &damaged) || damaged.Path != path || !errors.Is(err, damaged.Err) {
			t.Fatalf("%s at %d: %v, %v", what, at, l, err)
		}
	}
	head := 0 // the zeros behind the head carry nothing
	for i, b := range good[:page] {
		if b != 0 {
			head = i
		}
	}
	for at := 0; at < len(good); at += 13 {
		if at > head && at < page {
			continue
		}
		b := append([]byte(nil), good...)
		b[at] ^= 1 << (at % 8)
		check("a flipped bit", at, b)
	}
	for at := 0; at < len(good); at += 29 {
		check("a cut", at, good[:at])
	}
	if err := os.WriteFile(filepath.Join(j.Dir(), layerName("v")), good, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Get("v"); err == nil || !strings.Contains(err.Error(), `it is of weight "w"`) {
		t.Errorf("the result for another weight: %v", err)
	}
}

func TestDigest(t *testing.T) {
	w, _ := weight(t, "d4:4", 40, 30)
	first, err := Digest(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	w.v[len(w.v)-1]++
	if again, err := Digest(t.Context(), w); err != nil || again == first {
		t.Errorf("another number, the same digest (%v)", err)
	}
	w.v[len(w.v)-1]--
	if again, err := Digest(t.Context(), dense{30, 40, w.v}); err != nil || again == first {
		t.Errorf("another shape, the same digest (%v)", err)
	}
	if again, err := Digest(t.Context(), byColumns{w}); err != nil || again == first {
		t.Errorf("the same numbers by columns, the same digest (%v)", err)
	}
}

// broken fails for numbers from the given one on.
type broken struct {
	dense
	from int64
}

func (b broken) Numbers(dst []float32, from int64) error {
	if from+int64(len(dst)) > b.from {
		return fs.ErrClosed
	}
	return b.dense.Numbers(dst, from)
}

// TestDigestOfPieces has a weight that is summed up in several pieces at the same time give what one after the other does, notice a
// number in any of them, and end with an error.
func TestDigestOfPieces(t *testing.T) {
	for _, count := range []int{1, digestNumbers - 1, digestNumbers, digestNumbers + 1, 7*digestNumbers + 5} {
		w := dense{1, count, make([]float32, count)}
		for i := range w.v {
			w.v[i] = float32(i)
		}
		all := sha256.New()
		fmt.Fprintf(all, "1 %d false %d ", count, digestNumbers)
		for piece := range slices.Chunk(w.v, digestNumbers) {
			sum := sha256.New()
			_ = binary.Write(sum, binary.LittleEndian, piece)
			all.Write(sum.Sum(nil))
		}
		want := hex.EncodeToString(all.Sum(nil))
		got, err := Digest(t.Context(), w)
		if err != nil || got != want {
			t.Errorf("%d numbers: %s, %v, want %s", count, got, err, want)
		}
		for _, at := range []int{0, count / 2, count - 1} {
			w.v[at]++
			if got, err := Digest(t.Context(), w); err != nil || got == want {
				t.Errorf("%d numbers, another one at %d: %s, %v", count, at, got, err)
			}
			w.v[at]--
			if _, err := Digest(t.Context(), broken{w, int64(at)}); !errors.Is(err, fs.ErrClosed) {
				t.Errorf("%d numbers, of which those from %d on cannot be read: %v", count, at, err)
			}
		}
		done, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := Digest(done, w); !errors.Is(err, context.Canceled) {
			t.Errorf("%d numbers, canceled: %v", count, err)
		}
	}
}

func TestOutput(t *testing.T) {
	j := create(t)
	if files, err := j.Output(); len(files) != 0 || err != nil {
		t.Errorf("%v, %v", files, err)
	}
	want := []File{{Path: "q.onnx", SHA256: "aa"}, {Path: "q.onnx.data", SHA256: "bb"}}
	if err := j.SetOutput(want); err != nil {
		t.Fatal(err)
	}
	if got, err := j.Output(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

// What a killed removal leaves still tells of the output, which would otherwise pass for a file of the user's.
func TestOutputOutlivesRemoval(t *testing.T) {
	j := create(t)
	if err := j.Put("w", Layer{Source: "s", Meta: []byte(`{}`)}); err != nil {
		t.Fatal(err)
	}
	want := []File{{Path: "q.onnx", SHA256: "aa"}}
	if err := j.SetOutput(want); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(j.Dir())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != settingsName { // removed last
			if err := os.Remove(filepath.Join(j.Dir(), e.Name())); err != nil {
				t.Fatal(err)
			}
		}
	}
	again, err := Open(j.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.Output(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if err := again.Require(settings); err != nil {
		t.Error(err)
	}
}

// A removal that fails leaves a journal, and results without settings are not taken for those of other settings.
func TestFailedRemoval(t *testing.T) {
	j := create(t)
	if err := j.Put("w", Layer{Source: "s", Meta: []byte(`{}`)}); err != nil {
		t.Fatal(err)
	}
	stuck := errors.New("it is stuck")
	removeAll = func(path string) error {
		if filepath.Ext(path) == layerEnding {
			return stuck
		}
		return os.RemoveAll(path)
	}
	err := j.Remove()
	removeAll = os.RemoveAll
	if !errors.Is(err, stuck) {
		t.Errorf("removal: %v", err)
	}
	again, err := Open(j.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Require(settings); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(j.Dir(), settingsName)); err != nil {
		t.Fatal(err)
	}
	var foreign *ForeignError
	if _, err := Create(j.Dir(), settings); !errors.As(err, &foreign) {
		t.Errorf("begun over stray results: %v", err)
	}
	if err := again.Remove(); err != nil {
		t.Error(err)
	}
}

// The first plan stands.
func TestPlan(t *testing.T) {
	j := create(t)
	if plan, err := j.Plan(); plan != nil || err != nil {
		t.Errorf("%q, %v", plan, err)
	}
	for _, plan := range []string{"one", "two"} {
		if got, err := j.SetPlan([]byte(plan)); string(got) != "one" || err != nil {
			t.Errorf("after %q: %q, %v", plan, got, err)
		}
	}
	if again, err := Open(j.Dir()); err != nil {
		t.Error(err)
	} else if got, err := again.Plan(); string(got) != "one" || err != nil {
		t.Errorf("reopened: %q, %v", got, err)
	}
}

// FuzzLayer: whatever a layer file holds, it is refused or gives a matrix that decodes.
func FuzzLayer(f *testing.F) {
	j := create(f)
	for _, codec := range []string{"d4:4", "e8:2,2"} {
		_, m := weight(f, codec, 8, 16)
		if err := j.Put("w", Layer{Source: "s", Meta: []byte(`{}`), Matrix: m}); err != nil {
			f.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(j.Dir(), layerName("w")))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := j.parse("w", b)
		if err != nil || l.Matrix == nil {
			return
		}
		if err := l.Matrix.DecodeRows(make([]float32, l.Matrix.K), 0, 1); err != nil {
			t.Error(err)
		}
	})
}

// A folder that holds anything else is no place for a journal, and is not deleted as one.
func TestForeign(t *testing.T) {
	var foreign *ForeignError
	dir := t.TempDir()
	mine := filepath.Join(dir, "mine.txt")
	if err := os.WriteFile(mine, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(dir, settings); !errors.As(err, &foreign) || foreign.File != "mine.txt" {
		t.Error(err)
	}
	if err := Discard(dir); !errors.As(err, &foreign) {
		t.Error(err)
	}
	if _, err := os.Stat(mine); err != nil {
		t.Error(err)
	}
}

func TestDiscard(t *testing.T) {
	j := create(t)
	if err := putMany(j, 0, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := j.SetPlan([]byte("{}")); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{settingsName, ".temporary", "x" + layerEnding + ".0123" + tempEnding, "own"} {
		if err := os.WriteFile(filepath.Join(j.Dir(), name), []byte("{"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := Discard(j.Dir()); err == nil {
		t.Error("a file that nobody called the caller's was deleted")
	}
	if err := Discard(j.Dir(), "own"); err != nil {
		t.Error(err)
	}
	if err := Discard(j.Dir()); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	// What a process leaves that was killed while it began.
	if err := os.MkdirAll(j.Dir(), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(j.Dir(), settingsName+".0123"+tempEnding), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(j.Dir(), settings); err != nil {
		t.Error(err)
	}
}
