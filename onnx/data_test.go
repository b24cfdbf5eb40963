package onnx

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestFloat16(t *testing.T) {
	// Every half is exact as a float32, so it must come back.
	for h := range 1 << 16 {
		f := Float16ToFloat32(uint16(h))
		got := Float16FromFloat32(f)
		if f != f {
			if got&0x7c00 != 0x7c00 || got&0x3ff == 0 {
				t.Fatalf("NaN %04x became %04x", h, got)
			}
			continue
		}
		if got != uint16(h) {
			t.Fatalf("%04x -> %v -> %04x", h, f, got)
		}
	}
	for _, tt := range []struct {
		f    float32
		want uint16
	}{
		{1, 0x3c00}, {-2, 0xc000}, {65504, 0x7bff}, {65519.996, 0x7bff}, {65520, 0x7c00}, {float32(math.Inf(-1)), 0xfc00},
		{5.9604645e-8, 1}, {2.9802322e-8, 0}, {2.9802326e-8, 1}, {8.940697e-8, 2}, // 1.5 units: to even
		{6.097555e-5, 0x3ff}, {6.1035156e-5, 0x400}, {1 + 1.0/2048, 0x3c00}, {1 + 3.0/2048, 0x3c02},
		{1e-45, 0}, {float32(math.Copysign(0, -1)), 0x8000},
	} {
		if got := Float16FromFloat32(tt.f); got != tt.want {
			t.Errorf("Float16FromFloat32(%v) = %04x, want %04x", tt.f, got, tt.want)
		}
	}
}

// Rounding must give the nearest of all candidates, even on a tie.
func TestHalfRoundsToNearestEven(t *testing.T) {
	nearest := func(name string, from func(float32) uint16, to func(uint16) float32, inf uint16) {
		rapid.Check(t, func(t *rapid.T) {
			f := math.Float32frombits(rapid.Uint32Range(0, 0x7f7fffff).Draw(t, "f"))
			h := from(f)
			if h == inf {
				return // beyond half a unit over the largest; the table has the border
			}
			d := math.Abs(float64(to(h)) - float64(f))
			for _, c := range []uint16{h - 1, h + 1} {
				if c == inf || c > inf {
					continue
				}
				e := math.Abs(float64(to(c)) - float64(f))
				if e < d || e == d && h&1 == 1 {
					t.Fatalf("%s of %v is %04x (%v), but %04x (%v) is nearer or even", name, f, h, to(h), c, to(c))
				}
			}
		})
	}
	nearest("float16", Float16FromFloat32, Float16ToFloat32, 0x7c00)
	nearest("bfloat16", BFloat16FromFloat32, BFloat16ToFloat32, 0x7f80)
	if got := BFloat16FromFloat32(math.MaxFloat32); got != 0x7f80 {
		t.Errorf("bfloat16 of the largest float32 is %04x, want infinity", got)
	}
	if h := BFloat16FromFloat32(math.Float32frombits(0x7f800001)); h&0x7f == 0 {
		t.Errorf("bfloat16 of a NaN is %04x, an infinity", h)
	}
}

// Known values of the small types, from the tables of their specifications.
func TestSmallTypes(t *testing.T) {
	nan := float32(math.NaN())
	inf := float32(math.Inf(1))
	for _, tt := range []struct {
		dt   DataType
		code int
		want float32
	}{
		{Float8E4M3FN, 0x7e, 448}, {Float8E4M3FN, 0x7f, nan}, {Float8E4M3FN, 0x01, 1.0 / 512}, {Float8E4M3FN, 0xb8, -1},
		{Float8E4M3FNUZ, 0x7f, 240}, {Float8E4M3FNUZ, 0x80, nan}, {Float8E4M3FNUZ, 0x40, 1}, {Float8E4M3FNUZ, 0x01, 1.0 / 1024},
		{Float8E5M2, 0x7b, 57344}, {Float8E5M2, 0x7c, inf}, {Float8E5M2, 0x7d, nan}, {Float8E5M2, 0x01, 1.0 / 65536},
		{Float8E5M2FNUZ, 0x7f, 57344}, {Float8E5M2FNUZ, 0x80, nan}, {Float8E5M2FNUZ, 0x40, 1},
		{Float8E8M0, 127, 1}, {Float8E8M0, 0, 0x1p-127}, {Float8E8M0, 255, nan},
		{Float4E2M1, 1, .5}, {Float4E2M1, 7, 6}, {Float4E2M1, 15, -6}, {Float4E2M1, 3, 1.5},
		{Float6E2M3, 31, 7.5}, {Float6E2M3, 1, .125}, {Float6E3M2, 31, 28}, {Float6E3M2, 1, .0625}, {Float6E3M2, 63, -28},
		{Int4, 15, -1}, {Int4, 8, -8}, {Uint4, 15, 15}, {Int2, 2, -2}, {Int2, 1, 1}, {Uint2, 3, 3}, {Int8, 0x80, -128}, {Bool, 2, 1},
	} {
		got := codeTables[tt.dt][tt.code]
		if math.Float32bits(got) != math.Float32bits(tt.want) && !(got != got && tt.want != tt.want) {
			t.Errorf("%v code %#x = %v, want %v", tt.dt, tt.code, got, tt.want)
		}
	}
}

// storages returns the same tensor in every form ONNX can store it in.
func storages(dt DataType, dims []int64, raw []byte) map[string]*Tensor {
	all := map[string]*Tensor{
		"raw":    NewRawTensor("t", dt, dims, raw),
		"stream": NewStreamTensor("t", dt, dims, opaqueData{raw}),
		"bytes":  NewStreamTensor("t", dt, dims, bytesData(raw)),
	}
	n, _ := numElements(dims)
	typed := &Tensor{Name: "t", DataType: dt, Dims: dims}
	a := access{n: n, bits: dt.Bits(), raw: raw}
	ints := func(width int) (v []uint64) {
		for i := 0; i < len(raw); i += width {
			var x uint64
			for k := range width {
				x |= uint64(raw[i+k]) << (8 * k)
			}
			v = append(v, x)
		}
		return v
	}
	switch dt {
	case Float, Complex64:
		var v []float32
		for _, x := range ints(4) {
			v = append(v, math.Float32frombits(uint32(x)))
		}
		typed.FloatData = Pack(v...)
	case Double, Complex128:
		var v []float64
		for _, x := range ints(8) {
			v = append(v, math.Float64frombits(x))
		}
		typed.DoubleData = Pack(v...)
	case Int64:
		var v []int64
		for _, x := range ints(8) {
			v = append(v, int64(x))
		}
		typed.Int64Data = Pack(v...)
	case Uint64:
		typed.Uint64Data = Pack(ints(8)...)
	case Uint32:
		typed.Uint64Data = Pack(ints(4)...)
	case Float6E2M3, Float6E3M2:
		var v []int32
		for i := range n {
			v = append(v, int32(code(raw, 6, int(i))))
		}
		typed.Int32Data = Pack(v...)
	default:
		var v []int32
		for _, x := range ints((a.bits + 7) / 8) {
			switch dt {
			case Int8:
				v = append(v, int32(int8(x))) // as other writers store negative numbers
			case Int16:
				v = append(v, int32(int16(x)))
			default:
				v = append(v, int32(x))
			}
		}
		typed.Int32Data = Pack(v...)
	}
	all["typed"] = typed
	return all
}

// bytesData is a Data that can be read anywhere.
type bytesData []byte

func (d bytesData) Size() int64                             { return int64(len(d)) }
func (d bytesData) WriteTo(w io.Writer) (int64, error)      { return writeBytes(w, d) }
func (d bytesData) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(d).ReadAt(p, off) }

// opaqueData is a Data that can only be written.
type opaqueData struct{ b []byte }

func (d opaqueData) Size() int64 { return int64(len(d.b)) }
func (d opaqueData) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for i := 0; i < len(d.b); i += 1000 {
		n, err := w.Write(d.b[i:min(i+1000, len(d.b))])
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

func TestEveryTypeInEveryStorage(t *testing.T) {
	for dt := Float; dt <= Float6E3M2; dt++ {
		if dt == String {
			continue
		}
		t.Run(dt.String(), func(t *testing.T) {
			for _, n := range []int64{0, 1, 3, 37, 9000} {
				size, err := rawSize(dt, n)
				if err != nil {
					t.Fatal(err)
				}
				raw := make([]byte, size)
				for i := range raw {
					raw[i] = byte(i*73 + i>>8)
					if dt == Bool {
						raw[i] &= 1
					}
				}
				if r := n * int64(dt.Bits()) % 8; r != 0 {
					raw[size-1] &= 1<<r - 1
				}
				var want []float32
				for name, x := range storages(dt, []int64{n}, raw) {
					if err := x.Validate(); err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					got, err := x.Bytes()
					if err != nil || !bytes.Equal(got, raw) {
						t.Fatalf("%s, %d elements: Bytes is not the raw data: %v", name, n, err)
					}
					var w bytes.Buffer
					if _, err := x.WriteRaw(&w); err != nil || !bytes.Equal(w.Bytes(), raw) {
						t.Fatalf("%s, %d elements: WriteRaw is not the raw data: %v", name, n, err)
					}
					v, err := x.Float32s()
					if dt == Complex64 || dt == Complex128 {
						if !errors.Is(err, ErrDataType) {
							t.Fatalf("%s: a complex tensor as float32: %v", name, err)
						}
						continue
					}
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					if want == nil {
						want = v
					}
					if !sameFloats(v, want) {
						t.Fatalf("%s: other values than from another storage", name)
					}
					// In pieces that share bytes and chunks.
					for _, step := range []int64{1, 7, 8191} {
						if step == 1 && n > 100 {
							continue
						}
						for from := int64(0); from < n; from += step {
							to := min(from+step, n)
							part := make([]float32, to-from)
							if err := x.Float32Range(part, from, to); err != nil {
								t.Fatal(err)
							}
							if !sameFloats(part, want[from:to]) {
								t.Fatalf("%s: elements %d to %d differ", name, from, to)
							}
						}
					}
					// In runs that overlap, touch, or leave elements out.
					for _, run := range []struct{ n, stride int64 }{{3, 2}, {3, 3}, {5, 7}, {1, 101}} {
						if n < run.n {
							continue
						}
						var runs []float32
						for from := n % 2; from+run.n <= n && len(runs) < 1000; from += run.stride {
							runs = append(runs, want[from:from+run.n]...)
						}
						got := make([]float32, len(runs))
						if err := x.Float32Runs(got, n%2, run.n, run.stride); err != nil && len(runs) > 0 {
							t.Fatal(err)
						}
						if !sameFloats(got, runs) {
							t.Fatalf("%s: runs of %d elements every %d differ", name, run.n, run.stride)
						}
					}
					if iv, err := x.Int64s(); err == nil {
						for i := range iv {
							if float32(iv[i]) != want[i] && dt.Bits() < 64 {
								t.Fatalf("%s: element %d is %d and %v", name, i, iv[i], want[i])
							}
						}
					} else if !errors.Is(err, ErrDataType) {
						t.Fatal(err)
					}
				}
			}
		})
	}
}

func sameFloats(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

func TestLyingTensors(t *testing.T) {
	for _, tt := range []struct {
		name string
		t    *Tensor
		want error
	}{
		{"raw too short", &Tensor{DataType: Float, Dims: []int64{3}, RawData: make([]byte, 8)}, ErrTensorSize},
		{"raw too long", &Tensor{DataType: Float, Dims: []int64{1}, RawData: make([]byte, 8)}, ErrTensorSize},
		{"negative", &Tensor{DataType: Float, Dims: []int64{-1}, RawData: make([]byte, 8)}, ErrDims},
		{"overflow", &Tensor{DataType: Float, Dims: []int64{1 << 40, 1 << 40}}, ErrDims},
		{"overflow of bytes", &Tensor{DataType: Double, Dims: []int64{math.MaxInt64}}, ErrDims},
		{"nothing behind huge dims", &Tensor{DataType: Float, Dims: []int64{1 << 40}}, ErrTensorSize},
		{"few numbers", &Tensor{DataType: Float, Dims: []int64{1 << 40}, FloatData: Pack[float32](1)}, ErrTensorSize},
		{"wrong field", &Tensor{DataType: Float, Dims: []int64{1}, Int32Data: Pack[int32](1)}, ErrTensorSize},
		{"no type", &Tensor{Dims: []int64{1}, RawData: []byte{1}}, ErrDataType},
		{"unknown type", &Tensor{DataType: 99, RawData: []byte{1}}, ErrDataType},
		{"strings missing", &Tensor{DataType: String, Dims: []int64{2}, StringData: [][]byte{{}}}, ErrTensorSize},
		{"stream", NewStreamTensor("", Float, []int64{2}, bytesData{1}), ErrTensorSize},
		{"external without folder", &Tensor{DataType: Float, DataLocation: LocationExternal, ExternalData: []*Property{{Key: "location", Value: "x"}}}, ErrLocation},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.t.Validate(); !errors.Is(err, tt.want) {
				t.Errorf("Validate: %v, want %v", err, tt.want)
			}
			if _, err := tt.t.Float32s(); tt.t.DataType != String && !errors.Is(err, tt.want) {
				t.Errorf("Float32s: %v, want %v", err, tt.want)
			}
			if _, err := tt.t.Bytes(); err == nil {
				t.Error("Bytes: no error")
			}
		})
	}
	x := NewTensor("x", []int64{4}, []float32{1, 2, 3, 4})
	for _, r := range [][2]int64{{-1, 2}, {3, 2}, {2, 5}, {0, 4}} {
		if err := x.Float32Range(make([]float32, 3), r[0], r[1]); err == nil {
			t.Errorf("Float32Range %v into 3: no error", r)
		}
	}
	for _, r := range [][3]int64{{-1, 2, 1}, {0, 0, 1}, {0, -2, 1}, {0, 3, 1}, {2, 2, 1}, {0, 2, 3}, {0, 2, math.MaxInt64}, {1, 2, -2}} {
		if err := x.Float32Runs(make([]float32, 4), r[0], r[1], r[2]); err == nil {
			t.Errorf("Float32Runs %v into 4: no error", r)
		}
	}
}

func TestPackedRejectsGarbage(t *testing.T) {
	for _, wire := range [][]byte{{0x80}, {1, 0xff}, bytes.Repeat([]byte{0x80}, 11), append(bytes.Repeat([]byte{0xff}, 12), 1)} {
		var p Packed[int32]
		p.set(wire)
		if v, err := p.Values(); err == nil {
			t.Errorf("%x: read as %v", wire, v)
		}
	}
	p := Pack[int64](1, 2, 3)
	for _, from := range []int64{-1, 1, 4} {
		if err := p.Read(make([]int64, 3), from); err == nil {
			t.Errorf("reading 3 numbers from %d of 3: no error", from)
		}
	}
}

func ExampleTensor_Float32Runs() {
	w := NewTensor("w", []int64{3, 4}, []float32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12})
	columns := make([]float32, 3*2)
	if err := w.Float32Runs(columns, 1, 2, 4); err != nil {
		fmt.Println(err)
	}
	fmt.Println(columns)
	// Output:
	// [2 3 6 7 10 11]
}

func ExampleTensor_Float32Range() {
	w := NewTensor("w", []int64{3, 2}, []float32{1, 2, 3, 4, 5, 6})
	row := make([]float32, 2)
	for r := int64(0); r < 3; r++ {
		if err := w.Float32Range(row, 2*r, 2*r+2); err != nil {
			fmt.Println(err)
		}
		fmt.Println(row)
	}
	// Output:
	// [1 2]
	// [3 4]
	// [5 6]
}
