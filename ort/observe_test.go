//go:build cgo && linux

package ort_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/tensor"
)

// observer is a model that observes its input x [batch,3].
func observer(t *testing.T, tag, mode string) []byte {
	t.Helper()
	m := onnx.NewModel(8, 17, "test")
	m.Graph.Inputs = []*onnx.ValueInfo{value("x", onnx.Float, "batch", 3)}
	n := onnx.NewNode(cudaops.ObserveName, []string{"x"}, []string{"count"}, onnx.StringAttr(cudaops.AttrTag, tag), onnx.StringAttr(cudaops.AttrMode, mode))
	n.Domain = cudaops.Domain
	m.Graph.Nodes = []*onnx.Node{n}
	m.Graph.Outputs = []*onnx.ValueInfo{value("count", onnx.Float, 1)}
	m.SetOpset(cudaops.Domain, cudaops.OpVersion)
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestObservations(t *testing.T) {
	library := testenv.Ops(t)
	rt := openORT(t)
	s, err := rt.NewSessionFromBytes(observer(t, "tag", cudaops.ModeFull), "", ort.SessionOptions{OpsLibrary: library})
	if err != nil {
		t.Fatal(err)
	}
	o, err := ort.OpenObservations(library)
	if err != nil {
		t.Fatal(err)
	}
	o.ResetAll()
	if tags, err := o.Tags(); err != nil || len(tags) != 0 {
		t.Fatalf("tags %v, %v", tags, err)
	}
	for range 2 {
		if _, err := s.Run(context.Background(), map[string]*tensor.Tensor{"x": tensor.Of([]float32{1, 2, 3, 0, -1, 0.5}, 2, 3)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil { // what was gathered stays
		t.Fatal(err)
	}
	if tags, err := o.Tags(); err != nil || !slices.Equal(tags, []string{"tag"}) {
		t.Errorf("tags %v, %v", tags, err)
	}
	about, err := o.Get("tag")
	if err != nil || about != (ort.Observation{Columns: 3, Rows: 4, Full: true, Min: -1, Max: 3, Weight: 4}) {
		t.Errorf("got %+v, %v", about, err)
	}
	sums, moments := make([]float64, 3), make([]float64, 6)
	if err := o.Sums("tag", sums); err != nil || !slices.Equal(sums, []float64{2, 2, 7}) {
		t.Errorf("sums %v, %v", sums, err)
	}
	if err := o.Moments("tag", 0, 3, moments); err != nil || !slices.Equal(moments, []float64{2, 4, 6, 10, 11, 18.5}) {
		t.Errorf("moments %v, %v", moments, err)
	}
	if err := o.Moments("tag", 1, 2, moments[:2]); err != nil || !slices.Equal(moments[:2], []float64{10, 11}) {
		t.Errorf("row 1: %v, %v", moments[:2], err)
	}
	for name, err := range map[string]error{
		"too few sums":    o.Sums("tag", sums[:2]),
		"too few moments": o.Moments("tag", 0, 3, moments[:5]),
		"past the end":    o.Moments("tag", 2, 4, moments[:1]),
		"negative":        o.Moments("tag", -1, 0, nil),
		"unknown tag":     o.Sums("other", sums),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	o.Reset("tag")
	if _, err := o.Get("tag"); err == nil {
		t.Error("a tag that was reset is still there")
	}
}

// TestObserveWeighsRows gives two gradients of what reads A, and a row of zeros.
func TestObserveWeighsRows(t *testing.T) {
	library := testenv.Ops(t)
	rt := openORT(t)
	m, err := onnx.Parse(observer(t, "weighed", cudaops.ModeFull))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"g1", "g2"} {
		m.Graph.Inputs = append(m.Graph.Inputs, onnx.NewValueInfo(name, onnx.Float, "n", "m"+name))
	}
	m.Graph.Nodes[0].Inputs = []string{"x", "g1", "g2"}
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	s, err := rt.NewSessionFromBytes(b, "", ort.SessionOptions{OpsLibrary: library})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	o, err := ort.OpenObservations(library)
	if err != nil {
		t.Fatal(err)
	}
	o.ResetAll()
	x := []float32{1, 2, 2, 0, 0, 0, 0, 3, 4}
	if _, err := s.Run(t.Context(), map[string]*tensor.Tensor{"x": tensor.Of(x, 3, 3), "g1": tensor.Of([]float32{1, 5, 2}, 3, 1),
		"g2": tensor.Of([]float32{1, 1, 5, 5, 0, 2}, 3, 2)}); err != nil {
		t.Fatal(err)
	}
	checkWeighed(t, o, "weighed", x, []float64{3, 75, 8})

	m.Graph.Nodes[0].Inputs = []string{"x"}
	m.Graph.Nodes[0].Attributes = []*onnx.Attribute{onnx.StringAttr(cudaops.AttrTag, "alike"), onnx.StringAttr(cudaops.AttrMode, cudaops.ModeFull),
		onnx.IntAttr(cudaops.AttrAlike, 1)}
	m.Graph.Inputs = m.Graph.Inputs[:1]
	if b, err = m.Marshal(); err != nil {
		t.Fatal(err)
	}
	alike, err := rt.NewSessionFromBytes(b, "", ort.SessionOptions{OpsLibrary: library})
	if err != nil {
		t.Fatal(err)
	}
	defer alike.Close()
	if _, err := alike.Run(t.Context(), map[string]*tensor.Tensor{"x": tensor.Of(x, 3, 3)}); err != nil {
		t.Fatal(err)
	}
	checkWeighed(t, o, "alike", x, []float64{1, 1, 1})
}

// checkWeighed compares what is known of three rows of three columns, of which the second is zero, that weigh by their importance.
func checkWeighed(t *testing.T, o *ort.Observations, tag string, x []float32, importance []float64) {
	t.Helper()
	const even = cudaops.EvenShare
	energy := []float64{9, 0, 25}
	total := 9*importance[0] + 25*importance[2]
	var weight, first, last float64
	for r, e := range energy {
		w := (1 - even) * importance[r] / total
		if e > 0 {
			w += even / (3 * e)
		}
		weight += w
		first += w * float64(x[3*r]*x[3*r])
		last += w * float64(x[3*r+2]*x[3*r+2])
	}
	about, err := o.Get(tag)
	if err != nil || math.Abs(about.Weight-weight) > 1e-6 || about.Rows != 3 {
		t.Errorf("got %+v, %v, want a weight of %v", about, err, weight)
	}
	moments := make([]float64, 6)
	if err := o.Moments(tag, 0, 3, moments); err != nil || math.Abs(moments[0]-first) > 1e-6 || math.Abs(moments[5]-last) > 1e-6 {
		t.Errorf("moments %v, %v, want %v and %v", moments, err, first, last)
	}
}

func TestObserveRefusesAnUnknownMode(t *testing.T) {
	library := testenv.Ops(t)
	_, err := openORT(t).NewSessionFromBytes(observer(t, "tag", "half"), "", ort.SessionOptions{OpsLibrary: library})
	if !errors.Is(err, ort.ErrModel) {
		t.Errorf("got %v", err)
	}
}

// What runs at the same time keep back and add up later, in order, is what runs one after the other add up, to the bit.
func TestObserveStaging(t *testing.T) {
	library := testenv.Ops(t)
	rt := openORT(t)
	o, err := ort.OpenObservations(library)
	if err != nil {
		t.Fatal(err)
	}
	s, err := rt.NewSessionFromBytes(observer(t, "staged", cudaops.ModeFull), "", ort.SessionOptions{OpsLibrary: library, Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const runs = 24 // of more rows than fit into one panel
	rng := rand.New(rand.NewPCG(4, 5))
	var inputs []map[string]*tensor.Tensor
	for range runs {
		x := make([]float32, 3*(1+rng.IntN(60)))
		for i := range x {
			x[i] = float32(rng.NormFloat64())
		}
		inputs = append(inputs, map[string]*tensor.Tensor{"x": tensor.Of(x, int64(len(x)/3), 3)})
	}
	sums := func() []float64 {
		about, err := o.Get("staged")
		moments := make([]float64, 6)
		if err := errors.Join(err, o.Moments("staged", 0, 3, moments)); err != nil {
			t.Fatal(err)
		}
		return append(moments, float64(about.Rows), about.Min, about.Max)
	}
	o.ResetAll()
	defer o.ResetAll()
	for _, in := range inputs {
		if _, err := s.Run(t.Context(), in); err != nil {
			t.Fatal(err)
		}
	}
	want := sums()
	for _, threads := range []int{1, 3} {
		o.ResetAll()
		var stagings []*ort.Staging
		var group errgroup.Group
		for _, in := range inputs {
			staging, err := o.NewStaging()
			if err != nil {
				t.Fatal(err)
			}
			defer staging.Close()
			stagings = append(stagings, staging)
			group.Go(func() error {
				return staging.Run(func() error {
					_, err := s.Run(t.Context(), in)
					return err
				})
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		if about, err := o.Get("staged"); err != nil || about.Rows != 0 {
			t.Errorf("before anything is added up: %+v, %v", about, err)
		}
		for _, staging := range stagings {
			if err := staging.Commit(threads); err != nil {
				t.Fatal(err)
			}
		}
		if got := sums(); !slices.Equal(got, want) {
			t.Errorf("on %d threads %v, want %v", threads, got, want)
		}
	}
}

func TestOpenObservationsNeedsALibrary(t *testing.T) {
	openORT(t)
	path := filepath.Join(t.TempDir(), "libcosetq.so")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ort.OpenObservations(path); !errors.Is(err, ort.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

// A model in memory finds external data in the folder it is told, and the model file can be that data.
func TestSessionFromBytesMapsTheModelFile(t *testing.T) {
	path := model(t, func(g *onnx.Graph) {
		g.Initializers = []*onnx.Tensor{onnx.NewTensor("w", []int64{3}, []float32{10, 20, 30})}
		g.Nodes = []*onnx.Node{onnx.NewNode("Add", []string{"x", "w"}, []string{"y"})}
		g.Outputs = []*onnx.ValueInfo{value("y", onnx.Float, "batch", 3)}
	})
	m, err := onnx.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if n := m.ReferToFile(12); n != 1 {
		t.Errorf("%d tensors", n)
	}
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	s, err := openORT(t).NewSessionFromBytes(b, filepath.Dir(path), ort.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	out, err := s.Run(context.Background(), map[string]*tensor.Tensor{"x": tensor.Of([]float32{1, 2, 3}, 1, 3)})
	if err != nil {
		t.Fatal(err)
	}
	if y, err := tensor.View[float32](out["y"]); err != nil || !slices.Equal(y, []float32{11, 22, 33}) {
		t.Errorf("got %v, %v", y, err)
	}
	if _, err := openORT(t).NewSessionFromBytes([]byte("no model"), "", ort.SessionOptions{}); err == nil {
		t.Error("garbage was loaded")
	}
}
