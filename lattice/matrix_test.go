package lattice

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMatrixIsDeterministic(t *testing.T) {
	const rows, cols = 37, 64
	w := gaussianRow(11, rows*cols)
	steps := make([]float32, rows)
	for r := range steps {
		steps[r] = 0.05 + 0.01*float32(r)
	}
	steps[5] = 0
	for _, s := range groupCodecs {
		c := mustCodec(t, s)
		want, wantSSE, err := c.EncodeMatrix(w, rows, cols, steps, 1)
		if err != nil {
			t.Fatal(err)
		}
		decoded := make([]float32, rows*cols)
		if err := c.DecodeMatrix(decoded, want, steps, 1); err != nil {
			t.Fatal(err)
		}
		for _, threads := range []int{0, 2, 3, 100} {
			codes, sse, err := c.EncodeMatrix(w, rows, cols, steps, threads)
			if err != nil {
				t.Fatal(err)
			}
			if !cmp.Equal(codes, want) || !cmp.Equal(sse, wantSSE) {
				t.Errorf("%v: %d threads give other codes", c, threads)
			}
			again := make([]float32, rows*cols)
			if err := c.DecodeMatrix(again, codes, steps, threads); err != nil || !cmp.Equal(again, decoded) {
				t.Errorf("%v: %d threads decode to other weights, %v", c, threads, err)
			}
		}
		for r := range rows {
			row := w[r*cols : (r+1)*cols]
			var sse float64
			for j, x := range row {
				d := float64(x) - float64(decoded[r*cols+j])
				sse += d * d
			}
			if math.Abs(sse-wantSSE[r]) > 1e-4*sse {
				t.Errorf("%v: row %d reports error %v, actual %v", c, r, wantSSE[r], sse)
			}
			if d, err := c.Distortion(row, steps[r]); err != nil || d != wantSSE[r] {
				t.Errorf("%v: row %d has distortion %v, %v; EncodeRow says %v", c, r, d, err, wantSSE[r])
			}
		}
	}
}

func TestZeroStep(t *testing.T) {
	c := mustCodec(t, "d4:4,4:g2,3,4,5")
	row := []float32{1, 2, 3, 4, 5, 6, 7, 8}
	codes, err := c.NewCodes(1, len(row))
	if err != nil {
		t.Fatal(err)
	}
	sse, err := c.EncodeRow(codes.Indices, codes.Gains, row, 0)
	if err != nil || sse != 204 {
		t.Errorf("step 0: error sum %v, %v, want 204", sse, err)
	}
	if err := c.DecodeRow(row, codes.Indices, codes.Gains, 0); err != nil || slices.Max(row) != 0 || slices.Min(row) != 0 {
		t.Errorf("step 0 decodes to %v, %v", row, err)
	}
}

func TestRowErrors(t *testing.T) {
	c := mustCodec(t, "d4:4,4:g2,3,4,5")
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	row := func(x float32) []float32 { return []float32{0, 0, 0, x, 0, 0, 0, 0} }
	for _, test := range []struct {
		row            []float32
		indices, gains int
		step           float32
		want           string
	}{
		{row(1), 4, 1, nan, "out of range"},
		{row(1), 4, 1, -1, "out of range"},
		{row(1), 4, 1, inf, "out of range"},
		{row(1), 4, 1, 1e-45, "out of range"},
		{row(nan), 4, 1, 1, "weight 3 is NaN"},
		{row(inf), 4, 1, 1, "weight 3 is +Inf"},
		{row(-inf), 4, 1, 0, "weight 3 is -Inf"},
		{row(1e20), 4, 1, 1, "2^40 steps"},
		{row(1)[:7], 4, 1, 1, "multiple of 8"},
		{row(1), 3, 1, 1, "want 4 indices and 1 gains"},
		{row(1), 4, 2, 1, "want 4 indices and 1 gains"},
	} {
		_, err := c.EncodeRow(make([]uint16, test.indices), make([]uint8, test.gains), test.row, test.step)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("EncodeRow(%v, step %v): error %v, want one with %q", test.row, test.step, err, test.want)
		}
	}
	w := make([]float32, 8)
	for _, test := range []struct {
		indices []uint16
		gains   []uint8
		step    float32
	}{
		{[]uint16{0, 0, 0, 256}, []uint8{0}, 1},
		{[]uint16{0, 0, 0, 0}, []uint8{4}, 1},
		{[]uint16{0, 0, 0}, []uint8{0}, 1},
		{[]uint16{0, 0, 0, 0}, []uint8{0}, nan},
	} {
		if err := c.DecodeRow(w, test.indices, test.gains, test.step); err == nil {
			t.Errorf("DecodeRow(%v, %v, %v): want an error", test.indices, test.gains, test.step)
		}
	}
	if _, err := c.NewCodes(2, 12); err == nil {
		t.Error("NewCodes of 12 columns: want an error")
	}
	for _, size := range [][2]int{{math.MaxInt/2 + 1, math.MaxInt/2 + 1}, {math.MaxInt >> 4, 16}, {math.MaxInt, 16}, {1, math.MaxInt &^ 15}} {
		if _, err := c.NewCodes(size[0], size[1]); err == nil {
			t.Errorf("NewCodes of %d × %d: want an error", size[0], size[1])
		}
	}
	if _, _, err := c.EncodeMatrix(w, 1, 16, []float32{1}, 0); err == nil {
		t.Error("EncodeMatrix of too few weights: want an error")
	}
	if err := c.DecodeMatrix(w, &Codes{Rows: 1, Cols: 8}, []float32{1}, 0); err == nil {
		t.Error("DecodeMatrix of too few codes: want an error")
	}
	w[3] = nan
	if _, _, err := c.EncodeMatrix(w, 1, 8, []float32{1}, 0); err == nil || !strings.Contains(err.Error(), "row 0") {
		t.Errorf("EncodeMatrix of NaN: error %v, want one that names the row", err)
	}
}

func TestEncodeGroupDoesNotAllocate(t *testing.T) {
	row := (*[GroupSize]float32)(gaussianRow(1, GroupSize))
	for _, s := range []string{"d4:4,4:g2,3,4,5", "d4:3,3:g1,2", "e8:2,2", "z1:16"} {
		c := mustCodec(t, s)
		e := mustEncoder(t, c, c.NominalStep()/2)
		indices := make([]uint16, c.GroupIndices())
		if n := testing.AllocsPerRun(100, func() { e.EncodeGroup(indices, row) }); n != 0 {
			t.Errorf("%v: EncodeGroup allocates %v times", c, n)
		}
	}
}

// The bars of the presets on N(0,1) with 10^6 samples at the optimal step, and fact 14: no code beats 4^-R.
func TestPresetDistortion(t *testing.T) {
	skipMonteCarlo(t)
	const rows, cols = 250, 4000
	rng := rand.New(rand.NewPCG(2026, 11))
	w := make([]float32, rows*cols)
	for i := range w {
		w[i] = float32(rng.NormFloat64())
	}
	for bits, bar := range map[int]float64{4: 0.0056, 3: 0.0215, 2: 0.079} {
		c, err := Preset(bits)
		if err != nil {
			t.Fatal(err)
		}
		steps := slices.Repeat([]float32{c.NominalStep()}, rows)
		_, sse, err := c.EncodeMatrix(w, rows, cols, steps, 0)
		if err != nil {
			t.Fatal(err)
		}
		var sum float64
		for _, s := range sse {
			sum += s
		}
		mse := sum / float64(len(w))
		f := mse * math.Pow(4, c.Rate())
		t.Logf("%-16v %.2f bits per weight, MSE %.5f, %.2f dB, MSE·4^R %.3f", c, c.Rate(), mse, -10*math.Log10(mse), f)
		if mse > bar {
			t.Errorf("%v: MSE %.5f, want at most %v", c, mse, bar)
		}
		if f < 1 {
			t.Errorf("%v: MSE·4^R = %v beats the rate-distortion bound", c, f)
		}
	}
}

// NominalStep is at the bottom of the distortion, for presets (tabulated) and other codecs (measured).
func TestNominalStep(t *testing.T) {
	skipMonteCarlo(t)
	row := gaussianRow(12, 1<<17)
	for _, s := range []string{"d4:4,4:g3,4,5,6", "d4:2,4:g3,4,5,7", "d4:4:g3,4,5,7", "d4:4,4", "e8:2,2", "z1:16"} {
		c := mustCodec(t, s)
		if measured := c.measureNominalStep(); nominalSteps[s] != 0 && nominalSteps[s] != measured {
			t.Errorf("%v: tabulated step %v, measured %v", c, nominalSteps[s], measured)
		}
		best, err := c.Distortion(row, c.NominalStep())
		if err != nil {
			t.Fatal(err)
		}
		for _, factor := range []float32{0.7, 0.8, 0.9, 1.1, 1.2, 1.4} {
			d, err := c.Distortion(row, factor*c.NominalStep())
			if err != nil {
				t.Fatal(err)
			}
			if d < 0.99*best {
				t.Errorf("%v: distortion falls by %.1f %% at %v times the nominal step", c, 100*(1-d/best), factor)
			}
		}
	}
}

func ExampleCodec_EncodeMatrix() {
	const rows, cols = 2, 16
	w := []float32{
		0.3, -1.2, 0.8, 0.1, -0.4, 2.1, -0.9, 0.5, 0.2, 0.7, -1.5, 0.6, -0.1, 1.1, -0.6, 0.4,
		3.1, -0.2, 0.4, 1.6, -2.4, 0.9, -1.9, 2.5, 0.7, -0.7, 1.3, -0.3, 2.2, -1.1, 0.6, -2.4,
	}
	c, err := Preset(4)
	if err != nil {
		fmt.Println(err)
		return
	}
	steps := make([]float32, rows)
	for r := range steps {
		var sum float64
		for _, x := range w[r*cols : (r+1)*cols] {
			sum += float64(x * x)
		}
		steps[r] = c.NominalStep() * float32(math.Sqrt(sum/cols))
	}
	codes, sse, err := c.EncodeMatrix(w, rows, cols, steps, 2)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(codes.Indices), "indices,", len(codes.Gains), "gains")
	fmt.Printf("root mean square error %.2f and %.2f\n", math.Sqrt(sse[0]/cols), math.Sqrt(sse[1]/cols))
	decoded := make([]float32, rows*cols)
	if err := c.DecodeMatrix(decoded, codes, steps, 2); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%.2f\n", decoded[:8])
	// Output:
	// 16 indices, 4 gains
	// root mean square error 0.06 and 0.11
	// [0.20 -1.24 0.84 0.18 -0.39 2.08 -0.92 0.38]
}
