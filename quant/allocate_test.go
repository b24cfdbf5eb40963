package quant

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// drawLayers makes layers whose sizes and losses often coincide.
func drawLayers(t *rapid.T) [][]Choice {
	choice := rapid.Custom(func(t *rapid.T) Choice {
		return Choice{rapid.Int64Range(0, 12).Draw(t, "bytes"), float64(rapid.IntRange(0, 12).Draw(t, "loss")) / 4}
	})
	return rapid.SliceOfN(rapid.SliceOfN(choice, 1, 4), 0, 6).Draw(t, "layers")
}

// everyWay calls visit with every combination of choices.
func everyWay(layers [][]Choice, visit func(total Choice)) {
	var rec func(i int, total Choice)
	rec = func(i int, total Choice) {
		if i == len(layers) {
			visit(total)
			return
		}
		for _, c := range layers[i] {
			rec(i+1, Choice{total.Bytes + c.Bytes, total.Loss + c.Loss})
		}
	}
	rec(0, Choice{})
}

func TestFrontierIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		layers := drawLayers(t)
		f, err := NewFrontier(layers)
		if err != nil {
			t.Fatal(err)
		}
		budget := rapid.Int64Range(-1, 80).Draw(t, "budget")
		best := math.Inf(1)
		everyWay(layers, func(total Choice) {
			if total.Bytes <= budget {
				best = min(best, total.Loss)
			}
		})
		at := f.Within(budget)
		if (at < 0) != math.IsInf(best, 1) {
			t.Fatalf("within %d: point %d, the best loss is %v", budget, at, best)
		}
		if at >= 0 && f.Point(at).Loss != best {
			t.Fatalf("within %d: loss %v, the best is %v", budget, f.Point(at).Loss, best)
		}
		for i := range f.Len() {
			var total Choice
			for l, c := range f.Choices(i) {
				total.Bytes += layers[l][c].Bytes
				total.Loss += layers[l][c].Loss
			}
			if total != f.Point(i) {
				t.Fatalf("point %d is %v, its choices make %v", i, f.Point(i), total)
			}
			if i > 0 && !(f.Point(i).Bytes > f.Point(i-1).Bytes && f.Point(i).Loss < f.Point(i-1).Loss) {
				t.Fatalf("points %d and %d: %v, %v", i-1, i, f.Point(i-1), f.Point(i))
			}
		}
		limit := rapid.Float64Range(0, 20).Draw(t, "limit")
		if b := f.Below(limit); b < f.Len() && f.Point(b).Loss > limit || b > 0 && f.Point(b-1).Loss <= limit {
			t.Fatalf("below %v: point %d of %d", limit, b, f.Len())
		}
	})
}

// With many layers states are dropped; the convex hull, which Lagrangian multipliers find, still bounds what is lost.
func TestFrontierOfManyLayers(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var layers [][]Choice
	for range 200 {
		weights, cost := float64(rng.IntN(1<<20)+1000), math.Exp(2*rng.NormFloat64())
		var layer []Choice
		for _, bits := range []float64{2.25, 3.25, 4.25, 6.25} {
			layer = append(layer, Choice{int64(weights * bits / 8), cost * math.Exp2(-2*bits) * (1 + 0.1*rng.Float64())})
		}
		layers = append(layers, layer)
	}
	f, err := NewFrontier(layers)
	if err != nil {
		t.Fatal(err)
	}
	if f.Len() > maxStates {
		t.Errorf("%d points, want %d at most", f.Len(), maxStates)
	}
	for _, slope := range []float64{1e-9, 1e-8, 1e-7, 1e-6} {
		var hull Choice // the best for loss + slope·bytes: no other way beats it
		for _, layer := range layers {
			best := layer[0]
			for _, c := range layer {
				if c.Loss+slope*float64(c.Bytes) < best.Loss+slope*float64(best.Bytes) {
					best = c
				}
			}
			hull.Bytes += best.Bytes
			hull.Loss += best.Loss
		}
		if got := f.Point(f.Within(hull.Bytes)); got.Loss > 1.005*hull.Loss {
			t.Errorf("slope %g: loss %v within %d bytes, %v is possible", slope, got.Loss, hull.Bytes, hull.Loss)
		}
	}
}

func TestFrontierRefusesNonsense(t *testing.T) {
	for _, layers := range [][][]Choice{{{}}, {{{Bytes: -1}}}, {{{Loss: -1}}}, {{{Loss: math.NaN()}}}, {{{Loss: math.Inf(1)}}}, {make([]Choice, 257)}} {
		if _, err := NewFrontier(layers); err == nil {
			t.Errorf("NewFrontier(%v): want an error", layers)
		}
	}
}

func BenchmarkFrontier(b *testing.B) {
	layers := make([][]Choice, 300)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range layers {
		for bits := range 4 {
			layers[i] = append(layers[i], Choice{int64(rng.IntN(1000) + 1000000*bits), rng.Float64() * math.Exp2(float64(-2*bits))})
		}
	}
	for b.Loop() {
		if _, err := NewFrontier(layers); err != nil {
			b.Fatal(err)
		}
	}
}
