package tensor_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/cosetq/cosetq/tensor"
)

func ExampleOf() {
	t := tensor.Of([]float32{1, 2, 3, 4, 5, 6}, 2, 3)
	row := make([]float64, 3)
	if err := t.Floats(row, 3, 6); err != nil {
		panic(err)
	}
	fmt.Println(t.Type, tensor.FormatShape(t.Shape), row)
	// Output: float32 [2,3] [4 5 6]
}

func TestFloat16EveryValueRoundTrips(t *testing.T) {
	for bits := range 1 << 16 {
		h := tensor.Float16(bits)
		v := h.Float32()
		if math.IsNaN(float64(v)) {
			if !math.IsNaN(float64(tensor.ToFloat16(v).Float32())) {
				t.Fatalf("%04x: a NaN became a number", bits)
			}
			continue
		}
		if back := tensor.ToFloat16(v); back != h {
			t.Fatalf("%04x is %g, which became %04x", bits, v, uint16(back))
		}
		b := tensor.BFloat16(bits)
		if w := b.Float32(); !math.IsNaN(float64(w)) && tensor.ToBFloat16(w) != b {
			t.Fatalf("bfloat16 %04x became %04x", bits, uint16(tensor.ToBFloat16(w)))
		}
	}
}

func TestFloat16Rounding(t *testing.T) {
	for _, c := range []struct {
		in     float32
		want   tensor.Float16
		reason string
	}{
		{1, 0x3c00, "exact"},
		{1 + 1.0/2048, 0x3c00, "tie to even, down"},
		{1 + 3.0/2048, 0x3c02, "tie to even, up"},
		{65519, 0x7bff, "below the overflow threshold"},
		{65520, 0x7c00, "overflow"},
		{-65520, 0xfc00, "negative overflow"},
		{float32(math.Inf(1)), 0x7c00, "infinity"},
		{math.SmallestNonzeroFloat32, 0, "underflow"},
		{1.0 / (1 << 24), 1, "smallest subnormal"},
		{1.0 / (1 << 25), 0, "half of it, tie to even"},
		{float32(math.Copysign(0, -1)), 0x8000, "negative zero"},
	} {
		if got := tensor.ToFloat16(c.in); got != c.want {
			t.Errorf("%s: %g became %04x, want %04x", c.reason, c.in, uint16(got), uint16(c.want))
		}
	}
}

func TestNewChecksShape(t *testing.T) {
	if _, err := tensor.New(tensor.Float32, 2, -1); err == nil {
		t.Error("negative dimension accepted")
	}
	for _, shape := range [][]int64{{1 << 40, 1 << 40}, {1 << 60}, {math.MaxInt64}} {
		if _, err := tensor.New(tensor.Uint8, shape...); err == nil {
			t.Errorf("shape %v accepted", shape)
		}
	}
	if err := (&tensor.Tensor{Type: tensor.Float32, Shape: []int64{1 << 62}}).Check(); err == nil {
		t.Error("2^62 numbers in no bytes are taken, whose size in bytes is 0 in 64 bits")
	}
	if _, err := tensor.New(tensor.String, 1); err == nil {
		t.Error("string tensor accepted")
	}
	empty, err := tensor.New(tensor.Int64, 0, 5)
	if err != nil || empty.Count() != 0 || empty.Check() != nil {
		t.Errorf("empty tensor: %v, %v", empty, err)
	}
	scalar, err := tensor.New(tensor.Float64)
	if err != nil || len(scalar.Data) != 8 {
		t.Errorf("scalar: %v, %v", scalar, err)
	}
}

func TestViewRefusesAnotherType(t *testing.T) {
	if _, err := tensor.View[int32](tensor.Of([]float32{1}, 1)); err == nil {
		t.Error("float32 seen as int32")
	}
}

func TestSpec(t *testing.T) {
	s := tensor.Spec{Name: "ids", Type: tensor.Int64, Ranked: true, Shape: []tensor.Dim{{Size: -1, Name: "batch"}, {Size: 4}, {Size: -1}}}
	if got := s.String(); got != "ids int64[batch,4,?]" {
		t.Error(got)
	}
	if !s.Accepts(tensor.Int64, []int64{7, 4, 9}) || s.Accepts(tensor.Int64, []int64{7, 5, 9}) || s.Accepts(tensor.Int32, []int64{7, 4, 9}) {
		t.Error("Accepts judges wrongly")
	}
}

// A type is of real numbers, whole numbers or neither.
func TestKindsOfTypes(t *testing.T) {
	for _, tt := range []struct {
		t              tensor.Type
		float, integer bool
	}{
		{tensor.Float32, true, false}, {tensor.Float64, true, false}, {tensor.Float16Type, true, false}, {tensor.BFloat16Type, true, false},
		{tensor.Int8, false, true}, {tensor.Int16, false, true}, {tensor.Int32, false, true}, {tensor.Int64, false, true},
		{tensor.Uint8, false, true}, {tensor.Uint16, false, true}, {tensor.Uint32, false, true}, {tensor.Uint64, false, true},
		{tensor.Bool, false, false}, {tensor.String, false, false}, {tensor.Undefined, false, false},
	} {
		if tt.t.Float() != tt.float || tt.t.Integer() != tt.integer {
			t.Errorf("%v: float %v, integer %v", tt.t, tt.t.Float(), tt.t.Integer())
		}
	}
}

func TestCount(t *testing.T) {
	for _, tt := range []struct {
		shape []int64
		want  int64
		fails bool
	}{
		{nil, 1, false}, {[]int64{2, 3, 4}, 24, false}, {[]int64{5, 0}, 0, false}, {[]int64{2, -1}, 0, true}, {[]int64{1 << 40, 1 << 40}, 0, true},
	} {
		if n, err := tensor.Count(tt.shape); n != tt.want || (err != nil) != tt.fails {
			t.Errorf("%v: %d, %v", tt.shape, n, err)
		}
	}
}

// Of equal scores the first wins, whatever model gave them.
func TestArgMaxTakesTheFirst(t *testing.T) {
	if at := tensor.ArgMax([]float32{-3, 2, 1, 2}); at != 1 {
		t.Errorf("place %d, want 1", at)
	}
	if at := tensor.ArgMax([]float64{-3}); at != 0 {
		t.Errorf("place %d of one", at)
	}
}

func TestConverted(t *testing.T) {
	from := tensor.Of([]tensor.BFloat16{tensor.ToBFloat16(1.5), tensor.ToBFloat16(-3e38)}, 2, 1)
	single, err := from.Converted(tensor.Float32)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := tensor.View[float32](single); err != nil || v[0] != 1.5 || v[1] != tensor.ToBFloat16(-3e38).Float32() || len(single.Shape) != 2 {
		t.Errorf("%v %v, %v", v, single.Shape, err)
	}
	half, err := from.Converted(tensor.Float16Type)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := tensor.View[tensor.Float16](half); err != nil || v[0].Float32() != 1.5 || !math.IsInf(float64(v[1].Float32()), -1) {
		t.Errorf("%v, %v", v, err)
	}
	if c, err := from.Converted(tensor.Int64); err == nil {
		t.Errorf("converted to %v", c.Type)
	}
}
