package calib_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/calib"
)

// sampled is an observation of rows in memory, computed in double precision.
type sampled struct {
	rows    [][]float64
	columns int
	full    bool
}

func (s sampled) Mean(dst []float32) error {
	for c := range dst {
		var sum float64
		for _, r := range s.rows {
			sum += r[c]
		}
		dst[c] = float32(sum / float64(max(len(s.rows), 1)))
	}
	return nil
}

func (s sampled) Rows(dst []float32, first, last int) error {
	at := 0
	for i := first; i < last; i++ {
		end := i + 1
		if s.full {
			end = s.columns
		}
		for j := i; j < end; j++ {
			var sum float64
			for _, r := range s.rows {
				sum += r[i] * r[j]
			}
			dst[at] = float32(sum / float64(max(len(s.rows), 1)))
			at++
		}
	}
	if at != len(dst) {
		return fmt.Errorf("%d numbers asked for, there are %d", len(dst), at)
	}
	return nil
}

func (s sampled) observation(tag string, weights ...string) *calib.Observation {
	o := &calib.Observation{Tag: tag, Activation: tag, Weights: weights, Columns: s.columns, Rows: int64(len(s.rows)), Full: s.full, Moments: s}
	for i, r := range s.rows {
		for j, v := range r {
			if i == 0 && j == 0 {
				o.Min, o.Max = v, v
			}
			o.Min, o.Max = math.Min(o.Min, v), math.Max(o.Max, v)
		}
	}
	return o
}

func randomRows(rng *rand.Rand, rows, columns int) [][]float64 {
	all := make([][]float64, rows)
	for i := range all {
		all[i] = make([]float64, columns)
		for j := range all[i] {
			all[i][j] = rng.NormFloat64() + 0.2
		}
	}
	return all
}

func statistics(observations ...*calib.Observation) *calib.Statistics {
	return &calib.Statistics{Model: "m.onnx", Fingerprint: "cqs1:abc", Program: "test",
		Data: []calib.DataUsed{{Recipe: "r.yaml", Kind: "npz", Samples: 3}}, Observations: observations}
}

func save(t testing.TB, s *calib.Statistics) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s.cqs")
	size, err := s.Save(path, false)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != size {
		t.Fatalf("Save says %d bytes: %v, %v", size, info.Size(), err)
	}
	return path
}

func openStatistics(t testing.TB, path string) *calib.StatisticsFile {
	t.Helper()
	f, err := calib.OpenStatistics(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// sameMoments compares two observations to within a few roundings of float32.
func sameMoments(t *testing.T, got, want *calib.Observation) {
	t.Helper()
	numbers := func(o *calib.Observation) []float64 {
		mean, err := o.Mean()
		if err != nil {
			t.Fatal(err)
		}
		diagonal, err := o.Diagonal()
		if err != nil {
			t.Fatal(err)
		}
		all := slices.Concat(mean, diagonal)
		if o.Full {
			m, err := o.Matrix()
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, m...)
		}
		return all
	}
	a, b := numbers(got), numbers(want)
	if len(a) != len(b) {
		t.Fatalf("%s: %d numbers, want %d", got.Tag, len(a), len(b))
	}
	for i := range a {
		if math.Abs(a[i]-b[i]) > 1e-6*math.Max(1, math.Abs(b[i])) {
			t.Fatalf("%s: number %d is %v, want %v", got.Tag, i, a[i], b[i])
		}
	}
	if got.Rows != want.Rows || got.BadRows != want.BadRows || got.Min != want.Min || got.Max != want.Max {
		t.Errorf("%s: got %+v, want %+v", got.Tag, got, want)
	}
}

func TestStatisticsRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	s := statistics(sampled{randomRows(rng, 9, 5), 5, true}.observation("a", "w1", "w2"),
		sampled{randomRows(rng, 4, 7), 7, false}.observation("b", "w3"), sampled{nil, 3, true}.observation("c", "w4"))
	s.Observations[1].BadRows, s.Draws = 2, 7
	s.Observations[0].Damping = 0.25
	s.Gradients = []*calib.Observation{sampled{randomRows(rng, 9, 4), 4, true}.observation("gradient of w1", "w1")}
	f := openStatistics(t, save(t, s))
	if f.Model != s.Model || f.Fingerprint != s.Fingerprint || f.Program != s.Program || f.Draws != s.Draws || !slices.Equal(f.Data, s.Data) {
		t.Errorf("got %+v", f.Statistics)
	}
	if len(f.Observations) != len(s.Observations) || len(f.Gradients) != len(s.Gradients) {
		t.Fatalf("%d observations and %d gradients", len(f.Observations), len(f.Gradients))
	}
	for i, o := range slices.Concat(f.Observations, f.Gradients) {
		want := slices.Concat(s.Observations, s.Gradients)[i]
		if o.Tag != want.Tag || o.Activation != want.Activation || o.Damping != want.Damping || !slices.Equal(o.Weights, want.Weights) || o.Full != want.Full {
			t.Errorf("got %+v, want %+v", o, want)
		}
		sameMoments(t, o, want)
		if err := f.Verify(o); err != nil {
			t.Error(err)
		}
	}
	if got := f.Unreached(); !slices.Equal(got, []string{"w4"}) {
		t.Errorf("unreached: %v", got)
	}
	if _, err := f.Observations[1].Matrix(); err == nil {
		t.Error("a matrix was made from a diagonal")
	}
	if f.Gradient("gradient of w1") != f.Gradients[0] || f.Gradient("gradient of w2") != nil {
		t.Error("Gradient")
	}
	if f.Find("b") != f.Observations[1] || f.Find("x") != nil {
		t.Error("Find")
	}
}

func TestSaveReplacesOnlyWhenTold(t *testing.T) {
	s := statistics(sampled{nil, 3, true}.observation("c", "w"))
	path := save(t, s)
	if _, err := s.Save(path, false); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Save(path, true); err != nil {
		t.Error(err)
	}
	broken := statistics(&calib.Observation{Tag: "a", Columns: 3, Full: true, Moments: sampled{nil, 2, true}})
	if _, err := broken.Save(filepath.Join(filepath.Dir(path), "b.cqs"), false); err == nil {
		t.Error("moments of the wrong size were saved")
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// What is spilt reads as what was saved, and is gone when it is closed.
func TestSpill(t *testing.T) {
	dir := t.TempDir()
	s := statistics(sampled{randomRows(rand.New(rand.NewPCG(1, 1)), 9, 5), 5, true}.observation("a", "w"))
	f, err := s.Spill(dir)
	if err != nil {
		t.Fatal(err)
	}
	sameMoments(t, f.Observations[0], s.Observations[0])
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("%v, %v in the folder", left, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	broken := statistics(&calib.Observation{Tag: "a", Columns: 3, Full: true, Moments: sampled{nil, 2, true}})
	if _, err := broken.Spill(dir); err == nil {
		t.Error("moments of the wrong size were spilt")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Noise falls with the samples, and the damping for it; it is known only if all parts know theirs.
func TestMergeDampings(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 2))
	part := func(rows int, damping float64) *calib.Statistics {
		s := statistics(sampled{randomRows(rng, rows, 3), 3, true}.observation("a", "w"))
		s.Observations[0].Damping = damping
		return s
	}
	for _, c := range []struct {
		parts []*calib.Statistics
		want  float64
	}{
		{[]*calib.Statistics{part(4, 0.3)}, 0.3},
		{[]*calib.Statistics{part(4, 0.3), part(0, 0)}, 0.3},
		{[]*calib.Statistics{part(4, 0.5), part(5, 0.5)}, 0.25},
		{[]*calib.Statistics{part(4, 0.5), part(5, 0)}, 0},
	} {
		merged, err := calib.Merge(c.parts...)
		if err != nil || math.Abs(merged.Observations[0].Damping-c.want) > 1e-12 {
			t.Errorf("got %v, want %v; %v", merged.Observations[0].Damping, c.want, err)
		}
	}
}

func TestMergeIsOneRunOverAll(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	for _, full := range []bool{true, false} {
		rows := randomRows(rng, 30, 6)
		whole := statistics(sampled{rows, 6, full}.observation("a", "w1", "w2"), sampled{rows[20:], 6, full}.observation("b", "w3"))
		whole.Gradients = []*calib.Observation{sampled{rows, 6, full}.observation("g", "w1")}
		part := func(r [][]float64, weight string) *calib.Statistics {
			s := statistics(sampled{r, 6, full}.observation("a", weight))
			s.Gradients = []*calib.Observation{sampled{r, 6, full}.observation("g", "w1")}
			return s
		}
		second := part(rows[8:], "w2")
		second.Observations = append(second.Observations, whole.Observations[1])
		third := part(nil, "w1")
		f1, f2 := openStatistics(t, save(t, part(rows[:8], "w1"))), openStatistics(t, save(t, second))
		merged, err := calib.Merge(&f1.Statistics, &f2.Statistics, third)
		if err != nil {
			t.Fatal(err)
		}
		if len(merged.Data) != 3 {
			t.Errorf("data: %+v", merged.Data)
		}
		again := openStatistics(t, save(t, merged))
		sameMoments(t, again.Gradients[0], whole.Gradients[0])
		for i, o := range again.Observations {
			sameMoments(t, o, whole.Observations[i])
			if !slices.Equal(o.Weights, whole.Observations[i].Weights) {
				t.Errorf("weights %v", o.Weights)
			}
		}
	}
}

// Rows weigh: the mean is E[w x]/E[w], of parts that weigh differently too.
func TestMergeWeighsRows(t *testing.T) {
	rows := randomRows(rand.New(rand.NewPCG(4, 2)), 30, 3)
	part := func(rows [][]float64, weight float64) *calib.Statistics {
		s := statistics(sampled{rows, 3, true}.observation("a", "w"))
		s.Observations[0].Weight = weight
		return s
	}
	merged, err := calib.Merge(part(rows[:10], 0.5), part(rows[10:], 2))
	if err != nil {
		t.Fatal(err)
	}
	o := merged.Observations[0]
	if math.Abs(o.Weight-1.5) > 1e-12 { // (10·0.5 + 20·2)/30
		t.Errorf("the rows weigh %v on the mean, want 1.5", o.Weight)
	}
	mean, err := o.Mean()
	if err != nil {
		t.Fatal(err)
	}
	for c, got := range mean {
		var want float64
		for _, r := range rows {
			want += r[c] / 30
		}
		if want /= 1.5; math.Abs(got-want) > 1e-6 {
			t.Errorf("column %d has a mean of %v, want %v", c, got, want)
		}
	}
}

func TestMergeRefuses(t *testing.T) {
	rows := randomRows(rand.New(rand.NewPCG(3, 2)), 30, 3)
	part := func(rows [][]float64) *calib.Statistics {
		return statistics(sampled{rows, 3, true}.observation("a", "w"))
	}
	f1, f2 := openStatistics(t, save(t, part(rows[:20]))), openStatistics(t, save(t, part(rows[:20])))
	var twice *calib.TwiceError
	if _, err := calib.Merge(&f1.Statistics, part(rows), &f2.Statistics); !errors.As(err, &twice) || twice.First != 0 || twice.Second != 2 {
		t.Errorf("the same data twice: %v", err)
	}
	a := statistics(sampled{nil, 3, true}.observation("a", "w"))
	other := statistics(sampled{nil, 3, true}.observation("a", "w"))
	other.Fingerprint = "cqs1:other"
	if _, err := calib.Merge(a, other); !errors.Is(err, calib.ErrFingerprint) {
		t.Errorf("another model: %v", err)
	}
	if _, err := calib.Merge(a, statistics(sampled{nil, 4, true}.observation("a", "w"))); err == nil {
		t.Error("another size was merged")
	}
	if _, err := calib.Merge(a, statistics(sampled{nil, 3, false}.observation("a", "w"))); err == nil {
		t.Error("a diagonal was merged with a matrix")
	}
	b := part(rows[20:])
	b.Draws = 10
	if _, err := calib.Merge(part(rows[:20]), b); err == nil || !strings.Contains(err.Error(), "weigh all alike") {
		t.Errorf("rows that weigh by gradients and rows that weigh alike: %v", err)
	}
	if _, err := calib.Merge(); err == nil {
		t.Error("nothing was merged")
	}
}

func TestDamagedStatistics(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	data, err := os.ReadFile(save(t, statistics(sampled{randomRows(rng, 9, 5), 5, true}.observation("a", "w"))))
	if err != nil {
		t.Fatal(err)
	}
	try := func(name string, b []byte) (*calib.StatisticsFile, error) {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := calib.OpenStatistics(path)
		if err == nil {
			t.Cleanup(func() { _ = f.Close() })
		}
		return f, err
	}
	for n := range data {
		if _, err := try("cut", data[:n]); !errors.Is(err, calib.ErrNotStatistics) && !errors.Is(err, calib.ErrCorrupt) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
	if _, err := try("longer", append(slices.Clone(data), 0)); !errors.Is(err, calib.ErrCorrupt) {
		t.Errorf("a byte too many: %v", err)
	}
	for i := range data {
		b := slices.Clone(data)
		b[i] ^= 0x40
		f, err := try("flipped", b)
		if err == nil && i < 32 {
			t.Errorf("a flipped bit at %d of the header goes unseen", i)
		}
		if err != nil {
			continue
		}
		if err := f.Verify(f.Observations[0]); i >= 40 && !errors.Is(err, calib.ErrCorrupt) {
			t.Errorf("a flipped bit at %d goes unseen: %v", i, err)
		}
	}
	if _, err := calib.OpenStatistics(t.TempDir()); err == nil {
		t.Error("a folder was opened")
	}
	newer := slices.Clone(data)
	newer[8] = 2
	if _, err := try("newer", newer); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("another version: %v", err)
	}
}

func TestIsStatisticsFile(t *testing.T) {
	path := save(t, statistics(sampled{nil, 3, true}.observation("a", "w")))
	if !calib.IsStatisticsFile(path) {
		t.Error("not recognised")
	}
	other := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(other, []byte("cosetq"), 0o600); err != nil {
		t.Fatal(err)
	}
	if calib.IsStatisticsFile(other) || calib.IsStatisticsFile(other+"y") {
		t.Error("recognised what is none")
	}
}

func FuzzReadStatistics(f *testing.F) {
	rng := rand.New(rand.NewPCG(4, 4))
	s := statistics(sampled{randomRows(rng, 3, 4), 4, true}.observation("a", "w"), sampled{randomRows(rng, 3, 4), 4, false}.observation("b", "v"))
	data, err := os.ReadFile(save(f, s))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(data[:50])
	f.Fuzz(func(t *testing.T, data []byte) {
		data = slices.Clone(data)
		mendIndex(data)
		file, err := calib.ReadStatistics(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		for _, o := range file.Observations {
			if err := file.Verify(o); err != nil && !errors.Is(err, calib.ErrCorrupt) {
				t.Errorf("observation %q: %v", o.Tag, err)
			}
			if _, err := o.Diagonal(); err != nil {
				t.Errorf("observation %q: %v", o.Tag, err)
			}
		}
		var twice *calib.TwiceError
		if _, err := calib.Merge(&file.Statistics, &file.Statistics); err != nil && file.Shard == "" && !errors.As(err, &twice) {
			t.Errorf("merge with itself: %v", err)
		}
		if _, err := json.Marshal(file.Data); err != nil {
			t.Error(err)
		}
	})
}

// mendIndex makes the checksum of the index right, where there is an index, so that what is behind it gets tested.
func mendIndex(data []byte) {
	if len(data) < 40 {
		return
	}
	offset, length := binary.LittleEndian.Uint64(data[16:]), binary.LittleEndian.Uint64(data[24:])
	if size := uint64(len(data)); offset <= size && length <= size-offset {
		sum := crc32.Checksum(data[offset:offset+length], crc32.MakeTable(crc32.Castagnoli))
		binary.LittleEndian.PutUint32(data[12:], sum)
	}
}

// Some of the columns, as where the others never move, give some of the matrix.
func TestSubmatrix(t *testing.T) {
	rows := randomRows(rand.New(rand.NewPCG(8, 9)), 20, 6)
	o := sampled{rows: rows, columns: 6, full: true}.observation("x")
	all, err := o.Matrix()
	if err != nil {
		t.Fatal(err)
	}
	columns := []int{1, 2, 5}
	some, err := o.Submatrix(columns)
	if err != nil || len(some) != 9 {
		t.Fatalf("%d numbers, %v", len(some), err)
	}
	for i, r := range columns {
		for j, c := range columns {
			if some[3*i+j] != all[6*r+c] {
				t.Errorf("moment of columns %d and %d: %v, want %v", r, c, some[3*i+j], all[6*r+c])
			}
		}
	}
	if _, err := (sampled{rows: rows, columns: 6}).observation("x").Submatrix(columns); err == nil {
		t.Error("a matrix of columns of which only the squares are known")
	}
}

// failing cannot be read from offset bad on.
type failing struct {
	*bytes.Reader
	bad int64
}

var errDisk = errors.New("the disk is broken")

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.bad {
		return 0, errDisk
	}
	return f.Reader.ReadAt(p, off)
}

// What the disk does not give is no fault of the file.
func TestStatisticsOfABrokenDisk(t *testing.T) {
	data, err := os.ReadFile(save(t, statistics(sampled{[][]float64{{1, 2}}, 2, true}.observation("a", "w"))))
	if err != nil {
		t.Fatal(err)
	}
	size := int64(len(data))
	disk := &failing{bytes.NewReader(data), size}
	s, err := calib.ReadStatistics(disk, size)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, errDisk) || errors.Is(err, calib.ErrNotStatistics) || errors.Is(err, calib.ErrCorrupt) || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	disk.bad = size - 1
	_, err = calib.ReadStatistics(disk, size)
	check("index", err)
	disk.bad = 0
	_, err = calib.ReadStatistics(disk, size)
	check("header", err)
	_, err = s.Observations[0].Mean()
	check("moments", err)
}
