//go:build cgo && linux

package ort_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/tensor"
)

// observeModel observes x [rows, columns] under a tag, with gradients g0, g1, ...
func observeModel(t *testing.T, tag, mode string, columns int, float onnx.DataType, gradients int, alike bool) *onnx.Model {
	t.Helper()
	m := onnx.NewModel(8, 17, "test")
	inputs := []string{"x"}
	m.Graph.Inputs = []*onnx.ValueInfo{value("x", float, "rows", columns)}
	for g := range gradients {
		name := fmt.Sprint("g", g)
		inputs = append(inputs, name)
		m.Graph.Inputs = append(m.Graph.Inputs, value(name, float, "rows", "width of "+name))
	}
	n := onnx.NewNode(cudaops.ObserveName, inputs, []string{"count"}, onnx.StringAttr(cudaops.AttrTag, tag), onnx.StringAttr(cudaops.AttrMode, mode))
	if alike {
		n.Attributes = append(n.Attributes, onnx.IntAttr(cudaops.AttrAlike, 1))
	}
	n.Domain = cudaops.Domain
	m.Graph.Nodes = []*onnx.Node{n}
	m.Graph.Outputs = []*onnx.ValueInfo{value("count", onnx.Float, 1)}
	m.SetOpset(cudaops.Domain, cudaops.OpVersion)
	return m
}

func loadObserver(t *testing.T, m *onnx.Model, o ort.SessionOptions) *ort.Session {
	t.Helper()
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	o.OpsLibrary = testenv.Ops(t)
	s, err := openORT(t).NewSessionFromBytes(b, "", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// summed is all that is known under a tag.
type summed struct {
	about         ort.Observation
	sums, moments []float64
}

func readSummed(t *testing.T, o *ort.Observations, tag string) summed {
	t.Helper()
	about, err := o.Get(tag)
	if err != nil {
		t.Fatal(err)
	}
	s := summed{about: about, sums: make([]float64, about.Columns), moments: make([]float64, about.Columns)}
	if about.Full {
		s.moments = make([]float64, about.Columns*(about.Columns+1)/2)
	}
	// In two parts, as who reads large ones does.
	half := about.Columns / 2
	cut := half
	if about.Full {
		cut = half * (2*about.Columns - half + 1) / 2
	}
	if err := errors.Join(o.Sums(tag, s.sums), o.Moments(tag, 0, half, s.moments[:cut]), o.Moments(tag, half, about.Columns, s.moments[cut:])); err != nil {
		t.Fatal(err)
	}
	return s
}

func closeTo(got, want []float64, tolerance float64) bool {
	var largest float64
	for _, v := range want {
		largest = max(largest, math.Abs(v))
	}
	for i := range want {
		if d := math.Abs(got[i] - want[i]); !(d <= tolerance*largest) {
			return false
		}
	}
	return len(got) == len(want)
}

// bothObservations are those of the processor and of the provider's library, empty.
func bothObservations(t *testing.T, provider string) (cpu, gpu *ort.Observations) {
	t.Helper()
	cpu, err := ort.OpenObservations(testenv.Ops(t))
	if err != nil {
		t.Fatal(err)
	}
	if gpu, err = ort.OpenObservations(provider); err != nil {
		t.Fatal(err)
	}
	cpu.ResetAll()
	gpu.ResetAll()
	t.Cleanup(cpu.ResetAll)
	t.Cleanup(gpu.ResetAll)
	return cpu, gpu
}

func isThere(t *testing.T, o *ort.Observations, tag string) bool {
	t.Helper()
	tags, err := o.Tags()
	if err != nil {
		t.Fatal(err)
	}
	return slices.Contains(tags, tag)
}

// The provider adds up what the processor does, whatever rows weigh, in more runs than are needed to record one, and keeps it where the processor
// knows nothing of it.
func TestProviderObserves(t *testing.T) {
	library, _, _ := aboutProvider(t)
	cpu, gpu := bothObservations(t, library)
	rng := rand.New(rand.NewPCG(8, 9))
	for i, c := range []struct {
		mode      string
		columns   int
		rows      []int // of the runs
		gradients []int // their widths
		alike     bool
		float     onnx.DataType
	}{
		{cudaops.ModeFull, 3, []int{1, 1, 1}, nil, false, onnx.Float},
		{cudaops.ModeFull, 70, []int{33, 33, 33, 33, 33}, nil, false, onnx.Float},
		{cudaops.ModeFull, 70, []int{33, 33, 33, 33, 33}, []int{5, 9}, false, onnx.Float},
		{cudaops.ModeFull, 70, []int{33, 1, 20, 0, 7}, []int{5}, false, onnx.Float16},
		{cudaops.ModeDiagonal, 129, []int{100, 30}, []int{200}, false, onnx.Float16},
		{cudaops.ModeDiagonal, 200, []int{65, 64}, nil, true, onnx.Float},
		{cudaops.ModeFull, 64, []int{12, 12, 12, 12}, nil, true, onnx.Float16},
		{cudaops.ModeFull, 20, []int{5000}, []int{3}, false, onnx.Float}, // more than one product
	} {
		tag := fmt.Sprint("case ", i)
		m := observeModel(t, tag, c.mode, c.columns, c.float, len(c.gradients), c.alike)
		on := []*ort.Session{loadObserver(t, m, ort.SessionOptions{}), loadObserver(t, m, ort.SessionOptions{Provider: library})}
		random := func(rows, columns int) *tensor.Tensor {
			x := make([]float32, rows*columns)
			for j := range x {
				x[j] = float32(rng.NormFloat64())
			}
			if rows > 4 && columns == c.columns { // one without energy, one with an infinity
				clear(x[columns : 2*columns])
				x[3*columns+columns-1] = float32(math.Inf(1))
			}
			if c.float == onnx.Float16 {
				return tensor.Of(halves(x), int64(rows), int64(columns))
			}
			return tensor.Of(x, int64(rows), int64(columns))
		}
		for _, rows := range c.rows {
			inputs := map[string]*tensor.Tensor{"x": random(rows, c.columns)}
			for g, width := range c.gradients {
				inputs[fmt.Sprint("g", g)] = random(rows, width)
			}
			for _, s := range on {
				out, err := s.Run(t.Context(), inputs)
				if err != nil {
					t.Fatal(err)
				}
				count := make([]float64, 1)
				if err := out["count"].Floats(count, 0, 1); err != nil || count[0] != float64(rows) {
					t.Fatalf("%s: %v rows, %v, want %d", tag, count, err, rows)
				}
			}
		}
		want, got := readSummed(t, cpu, tag), readSummed(t, gpu, tag)
		weights := math.Abs(got.about.Weight/want.about.Weight - 1)
		got.about.Weight = want.about.Weight
		if got.about != want.about || !(weights < 1e-9) {
			t.Errorf("%s: %+v, weight off by %g, want %+v", tag, got.about, weights, want.about)
		}
		if !closeTo(got.sums, want.sums, 1e-6) || !closeTo(got.moments, want.moments, 2e-6) {
			t.Errorf("%s: other sums than the processor's", tag)
		}
		cpu.Reset(tag)
		if err := on[1].Close(); err != nil {
			t.Fatal(err)
		}
		if isThere(t, cpu, tag) || !isThere(t, gpu, tag) {
			t.Errorf("%s: the processor has the sums of the provider", tag)
		}
	}
}

// What is reset begins anew, in sessions that stay; a node that is off leaves no sums; a tag has one size.
func TestProviderObservesAnew(t *testing.T) {
	library, _, _ := aboutProvider(t)
	_, gpu := bothObservations(t, library)
	s := loadObserver(t, observeModel(t, "anew", cudaops.ModeFull, 2, onnx.Float, 0, false), ort.SessionOptions{Provider: library})
	x := map[string]*tensor.Tensor{"x": tensor.Of([]float32{1, 2, 3, 4}, 2, 2)}
	for round := range 5 {
		for range 4 {
			if _, err := s.Run(t.Context(), x); err != nil {
				t.Fatal(err)
			}
		}
		if got := readSummed(t, gpu, "anew"); got.about.Rows != 8 || !slices.Equal(got.moments, []float64{40, 56, 80}) || !slices.Equal(got.sums, []float64{16, 24}) {
			t.Errorf("round %d: %+v", round, got)
		}
		if round%2 == 0 {
			gpu.Reset("anew")
		} else {
			gpu.ResetAll()
		}
		if _, err := gpu.Get("anew"); err == nil {
			t.Error("what was reset is still there")
		}
	}
	off := loadObserver(t, observeModel(t, "off", cudaops.ModeOff, 2, onnx.Float, 0, false), ort.SessionOptions{Provider: library})
	if _, err := off.Run(t.Context(), x); err != nil || isThere(t, gpu, "off") {
		t.Errorf("a node that is off adds up, %v", err)
	}
	if _, err := s.Run(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	other := loadObserver(t, observeModel(t, "anew", cudaops.ModeDiagonal, 2, onnx.Float, 0, false), ort.SessionOptions{Provider: library})
	if _, err := other.Run(t.Context(), x); err == nil || !strings.Contains(err.Error(), "the tag anew is in use") {
		t.Errorf("got %v", err)
	}
	if _, err := gpu.NewStaging(); err == nil {
		t.Error("a staging of a library that keeps nothing back")
	}
}

// Sessions at work at the same time add to the same sums.
func TestProviderObservesTogether(t *testing.T) {
	library, _, _ := aboutProvider(t)
	_, gpu := bothObservations(t, library)
	m := observeModel(t, "together", cudaops.ModeFull, 40, onnx.Float, 0, false)
	x := make([]float32, 50*40)
	for i := range x {
		x[i] = float32(i % 7) // whole numbers: sums are exact in any order
	}
	const sessions, runs = 3, 20
	var group errgroup.Group
	for range sessions {
		s := loadObserver(t, m, ort.SessionOptions{Provider: library})
		group.Go(func() error {
			for range runs {
				if _, err := s.Run(t.Context(), map[string]*tensor.Tensor{"x": tensor.Of(x, 50, 40)}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	want := make([]float64, 0, 40*41/2)
	for i := range 40 {
		for j := i; j < 40; j++ {
			var sum float64
			for r := range 50 {
				sum += float64(x[40*r+i]) * float64(x[40*r+j])
			}
			want = append(want, sessions*runs*sum)
		}
	}
	if got := readSummed(t, gpu, "together"); got.about.Rows != sessions*runs*50 || !slices.Equal(got.moments, want) {
		t.Errorf("%d rows, moments are right: %v", got.about.Rows, slices.Equal(got.moments, want))
	}
}

// A node in a branch observes the runs that take it.
func TestProviderObservesInBranches(t *testing.T) {
	library, _, _ := aboutProvider(t)
	_, gpu := bothObservations(t, library)
	inner := observeModel(t, "inside", cudaops.ModeFull, 2, onnx.Float, 0, false)
	m := onnx.NewModel(8, 17, "test")
	m.Graph.Inputs = []*onnx.ValueInfo{value("x", onnx.Float, "rows", 2), value("yes", onnx.Bool, 1)}
	m.Graph.Outputs = []*onnx.ValueInfo{value("y", onnx.Float, "rows", 2)}
	m.Graph.Initializers = []*onnx.Tensor{onnx.NewTensor("w", []int64{2, 2}, []float32{1, 2, 3, 4})}
	body := func(op string, nodes ...*onnx.Node) *onnx.Graph {
		g := &onnx.Graph{Name: op, Outputs: []*onnx.ValueInfo{value(op, onnx.Float, "rows", 2)}}
		g.Nodes = append(nodes, onnx.NewNode(op, []string{"product"}, []string{op}))
		return g
	}
	m.Graph.Nodes = []*onnx.Node{
		onnx.NewNode("MatMul", []string{"x", "w"}, []string{"product"}),
		onnx.NewNode("If", []string{"yes"}, []string{"y"}, onnx.GraphAttr("then_branch", body("Relu", inner.Graph.Nodes[0])), onnx.GraphAttr("else_branch", body("Neg"))),
	}
	m.SetOpset(cudaops.Domain, cudaops.OpVersion)
	s := loadObserver(t, m, ort.SessionOptions{Provider: library})
	for i := range 8 {
		yes := []bool{i%2 == 0}
		if _, err := s.Run(t.Context(), map[string]*tensor.Tensor{"x": tensor.Of([]float32{1, 2, 3, 4}, 2, 2), "yes": tensor.Of(yes, 1)}); err != nil {
			t.Fatal(err)
		}
	}
	if got := readSummed(t, gpu, "inside"); got.about.Rows != 8 || !slices.Equal(got.moments, []float64{40, 56, 80}) {
		t.Errorf("%+v", got)
	}
}

// Learned queries, which are the same in all runs of a size, are observed in each.
func TestProviderObservesConstants(t *testing.T) {
	library, _, _ := aboutProvider(t)
	_, gpu := bothObservations(t, library)
	m := observeModel(t, "constant", cudaops.ModeFull, 2, onnx.Float, 0, false)
	m.Graph.Inputs = []*onnx.ValueInfo{value("y", onnx.Float, "rows", 2)}
	m.Graph.Initializers = []*onnx.Tensor{onnx.NewTensor("learned", []int64{1, 2}, []float32{1, 3})}
	m.Graph.Nodes = append([]*onnx.Node{
		onnx.NewNode("Shape", []string{"y"}, []string{"size"}),
		onnx.NewNode("Expand", []string{"learned", "size"}, []string{"x"}),
		onnx.NewNode("MatMul", []string{"x", "w"}, []string{"z"}), // for which they are observed
		onnx.NewNode("Add", []string{"y", "z"}, []string{"sum"}),
	}, m.Graph.Nodes...)
	m.Graph.Initializers = append(m.Graph.Initializers, onnx.NewTensor("w", []int64{2, 2}, []float32{1, 2, 3, 4}))
	m.Graph.Outputs = append(m.Graph.Outputs, value("sum", onnx.Float, "rows", 2))
	s := loadObserver(t, m, ort.SessionOptions{Provider: library})
	for range 6 {
		if _, err := s.Run(t.Context(), map[string]*tensor.Tensor{"y": tensor.Of([]float32{1, 2, 3, 4}, 2, 2)}); err != nil {
			t.Fatal(err)
		}
	}
	if got := readSummed(t, gpu, "constant"); got.about.Rows != 12 || !slices.Equal(got.moments, []float64{12, 36, 108}) || !slices.Equal(got.sums, []float64{12, 36}) {
		t.Errorf("%+v", got)
	}
}
