package lattice

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

func mustEncoder(tb interface{ Fatal(...any) }, c *Codec, step float32) Encoder {
	e, err := c.Encoder(step)
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

var groupCodecs = []string{
	"d4:4,4:g2,3,4,5", "d4:2,4:g3,4,5,7", "d4:4:g3,4,5,7", "d4:4,4", "d4:3,3:g1,2", "d4:2,2,2,2", "d4:2,2,2,2,2", "d4:16:g2,3",
	"d4:8,16", "e8:2,2:g3,4,5,7", "e8:4", "e8:3", "z1:16:g1,2", "z2:4,2", "z4:5", "z8:2,2",
}

func drawGroup(t *rapid.T) [GroupSize]float32 {
	var x [GroupSize]float32
	scale := math.Exp2(rapid.Float64Range(-8, 12).Draw(t, "log scale"))
	for j := range x {
		x[j] = float32(scale * rapid.Float64Range(-1, 1).Draw(t, "x"))
	}
	return x
}

// The fast path gives the results of the general one, bit for bit.
func TestPackedD4(t *testing.T) {
	for _, s := range groupCodecs {
		c := mustCodec(t, s)
		if c.packed == nil {
			continue
		}
		same := func(t interface{ Fatalf(string, ...any) }, e *Encoder, x *[GroupSize]float32) {
			var want, got [MaxLevels * GroupSize]uint16
			gain, err := e.encodeGroup(want[:], x)
			gotGain, gotErr := e.encodeGroupD4(got[:], x)
			if gain != gotGain || err != gotErr || want != got {
				t.Fatalf("%v of %v: fast path has gain %d, error %v, indices %v; want %d, %v, %v",
					c, x, gotGain, gotErr, got[:c.GroupIndices()], gain, err, want[:c.GroupIndices()])
			}
		}
		t.Run(s, rapid.MakeCheck(func(t *rapid.T) {
			x := drawGroup(t)
			e := mustEncoder(t, c, float32(math.Exp2(rapid.Float64Range(-4, 2).Draw(t, "log step"))))
			same(t, &e, &x)
		}))
		rng := rand.New(rand.NewPCG(4, 4))
		for _, factor := range []float32{0.3, 0.7, 1, 1.5} {
			e := mustEncoder(t, c, c.NominalStep()*factor)
			for range 2000 {
				var x [GroupSize]float32
				for j := range x {
					x[j] = float32(rng.NormFloat64())
				}
				same(t, &e, &x)
			}
		}
	}
}

// The fast path is taken for the presets.
func TestPresetsArePacked(t *testing.T) {
	for bits := 2; bits <= 4; bits++ {
		if c, err := Preset(bits); err != nil || c.packed == nil {
			t.Errorf("preset %d: %v, %v has no fast path", bits, c, err)
		}
	}
}

// A group decodes to within the error that its encoding reports, and encodes again to the same points.
func TestGroupRoundTrip(t *testing.T) {
	for _, s := range groupCodecs {
		c := mustCodec(t, s)
		t.Run(s, rapid.MakeCheck(func(t *rapid.T) {
			x := drawGroup(t)
			step := float32(math.Exp2(rapid.Float64Range(-4, 2).Draw(t, "log step")))
			e := mustEncoder(t, c, step)
			indices := make([]uint16, c.GroupIndices())
			gain, err := e.EncodeGroup(indices, &x)
			var w [GroupSize]float32
			e.DecodeGroup(&w, indices, gain)
			var sum, size float64
			for j := range x {
				d := (float64(x[j]) - float64(w[j])) / float64(step)
				sum += d * d
				size += float64(x[j]) * float64(x[j]) / float64(step) / float64(step)
			}
			// Rounding of y relative to its size, times the residual.
			if tolerance := 1e-5*sum + 1e-6*math.Sqrt(sum*size) + 1e-9*size + 1e-6; math.Abs(sum-float64(err)) > tolerance {
				t.Fatalf("reported error %v, actual %v", err, sum)
			}
		}))
	}
}

// Decode∘encode is the identity on every point of the code, at every gain.
func TestCodeWordsRoundTrip(t *testing.T) {
	for _, s := range groupCodecs {
		c := mustCodec(t, s)
		single, err := NewCodec(c.lattice, c.radices, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(s, rapid.MakeCheck(func(t *rapid.T) {
			e := mustEncoder(t, single, float32(math.Exp2(rapid.Float64Range(-4, 4).Draw(t, "log step"))))
			indices := make([]uint16, c.GroupIndices())
			for i := range indices {
				indices[i] = uint16(rapid.IntRange(0, c.leaders[i/c.Blocks()].Len()-1).Draw(t, "index"))
			}
			var w [GroupSize]float32
			e.DecodeGroup(&w, indices, 0)
			again := make([]uint16, len(indices))
			if _, sqErr := e.EncodeGroup(again, &w); sqErr > 1e-5 {
				t.Fatalf("code word %v has error %v", indices, sqErr)
			}
			for i := range indices {
				if again[i] != indices[i] {
					t.Fatalf("code word %v encodes to %v", indices, again)
				}
			}
		}))
	}
}

// Clamping to d4:4 costs at most two percent over the nearest of all 256 code words, however far out a block is.
func TestClampIsNearlyOptimal(t *testing.T) {
	skipMonteCarlo(t)
	c := mustCodec(t, "d4:4")
	rng := rand.New(rand.NewPCG(5, 5))
	for _, sigma := range []float64{1, 2, 4, 16} {
		var clamped, optimal float64
		for range 4000 {
			var y [MaxDim]float32
			for j := range c.dim {
				y[j] = float32(sigma*rng.NormFloat64()) + c.centre[j]
			}
			var v [MaxDim]int32
			var code block
			c.nearest(&v, &y)
			if c.digits(&code.class, &v) {
				continue
			}
			c.clamp(&code, &y)
			least := math.Inf(1)
			for k := range c.leaders[0].Len() {
				var e float64
				for j, leader := range c.leaders[0].At(k) {
					e += (float64(y[j]) - float64(leader)) * (float64(y[j]) - float64(leader))
				}
				least = min(least, e)
			}
			if float64(code.err) < least*(1-1e-5) {
				t.Fatalf("clamped error %v is below the least possible %v", code.err, least)
			}
			clamped += float64(code.err)
			optimal += least
		}
		if clamped > 1.02*optimal {
			t.Errorf("sigma %v: clamped error is %.4f of the least possible", sigma, clamped/optimal)
		}
	}
}

// Weights at the limit of EncodeRow are coded without overflow.
func TestExtremeWeights(t *testing.T) {
	for _, s := range groupCodecs {
		c := mustCodec(t, s)
		for _, step := range []float32{1, 1e-30, 1e25} {
			row := make([]float32, 2*GroupSize)
			for j := range row {
				row[j] = step * (maxSteps * 0.999) * float32(1-2*(j&1))
			}
			row[0], row[1] = 0, step
			codes, err := c.NewCodes(1, len(row))
			if err != nil {
				t.Fatal(err)
			}
			sse, err := c.EncodeRow(codes.Indices, codes.Gains, row, step)
			if err != nil || math.IsNaN(sse) || math.IsInf(sse, 0) {
				t.Errorf("%v, step %v: error sum %v, %v", c, step, sse, err)
			}
			if err := c.DecodeRow(row, codes.Indices, codes.Gains, step); err != nil {
				t.Errorf("%v, step %v: %v", c, step, err)
			}
		}
	}
}

// Golden values of the specified arithmetic: a change here breaks other implementations of the encoder.
func TestEncoderGolden(t *testing.T) {
	for _, test := range []struct {
		codec string
		hash  uint64
		sum   float32
	}{
		{"d4:4,4:g2,3,4,5", 0x915eccd17753d44f, 276973.97},
		{"d4:2,4:g3,4,5,7", 0x8e589661f58ce97f, 1.0956455e+06},
		{"d4:4:g3,4,5,7", 0xfca59c83e7084ec4, 3.882638e+06},
		{"d4:3,3:g1,2", 0x7afa92dbbaba326, 4.6098655e+06},
		{"e8:2,2:g3,4,5,7", 0x6250594e8a301be, 2.1227515e+06},
		{"z1:16", 0x15ca84fc8cf7f9ee, 5.343284e+06},
	} {
		hash, sum := encoderFingerprint(t, test.codec)
		if hash != test.hash || sum != test.sum {
			t.Errorf("{%q, %#x, %v},", test.codec, hash, sum)
		}
	}
}

// encoderFingerprint hashes the codes and errors of 4096 Gaussian groups whose scale runs over 2^-2 … 2^2.
func encoderFingerprint(t *testing.T, codec string) (hash uint64, sum float32) {
	c := mustCodec(t, codec)
	e := mustEncoder(t, c, 0.125)
	rng := rand.New(rand.NewPCG(6, 6))
	indices := make([]uint16, c.GroupIndices())
	hash = 14695981039346656037
	for i := range 4096 {
		var x [GroupSize]float32
		for j := range x {
			// A sum of uniforms: no library function whose last bit could differ between machines.
			x[j] = (rng.Float32() + rng.Float32() + rng.Float32() - 1.5) * float32(int(1)<<(i%5)) * 0.5
		}
		gain, err := e.EncodeGroup(indices, &x)
		for _, k := range append(indices, uint16(gain)) {
			hash = (hash ^ uint64(k)) * 1099511628211
		}
		hash = (hash ^ uint64(math.Float32bits(err))) * 1099511628211
		sum += err
	}
	return hash, sum
}

// A codec's coarse levels alone decode to a coarser version, and no level at all to 0.
func TestDecodeGroupCoarse(t *testing.T) {
	skipMonteCarlo(t)
	c := mustCodec(t, "d4:4,4:g2,3,4,5")
	e := mustEncoder(t, c, c.NominalStep())
	row := gaussianRow(17, 80_000)
	indices := make([]uint16, c.GroupIndices())
	var mse [3]float64
	for i := 0; i < len(row); i += GroupSize {
		x := (*[GroupSize]float32)(row[i:])
		gain, _ := e.EncodeGroup(indices, x)
		for from := range mse {
			var w [GroupSize]float32
			for i := range from * c.Blocks() {
				indices[i] = 9999 // not to be read
			}
			e.DecodeGroupCoarse(&w, indices, gain, from)
			for j := range w {
				d := float64(x[j]) - float64(w[j])
				mse[from] += d * d / float64(len(row))
			}
		}
	}
	if mse[0] > 0.0056 || mse[1] < 8*mse[0] || mse[1] > 24*mse[0] || math.Abs(mse[2]-1) > 0.02 {
		t.Errorf("MSE from 2, 1 and 0 levels is %.4f: want about 0.0053, 16 times that, and 1", mse)
	}
}
