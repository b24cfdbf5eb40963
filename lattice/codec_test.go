package lattice

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestParseCodec(t *testing.T) {
	for _, s := range []string{
		"d4:4,4:g3,4,5,7", "d4:4,4", "e8:2,2", "z1:16", "z1:255", "z8:2:g1,2", "d4:2,4:g2,3,4,6", "e8:3,3:g1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,127",
	} {
		c, err := ParseCodec(s)
		if err != nil {
			t.Errorf("ParseCodec(%q): %v", s, err)
			continue
		}
		if c.String() != s {
			t.Errorf("ParseCodec(%q).String() = %q", s, c)
		}
	}
	if c, err := ParseCodec("d4:4:g1"); err != nil || c.String() != "d4:4" {
		t.Errorf("ParseCodec(d4:4:g1) = %v, %v: want the codec without gains", c, err)
	}
}

func TestParseCodecErrors(t *testing.T) {
	for s, want := range map[string]string{
		"":                     "want LATTICE:RADICES",
		"d4":                   "want LATTICE:RADICES",
		"d4:4:g1,2:x":          "want LATTICE:RADICES",
		"a2:4":                 `unknown lattice "a2"`,
		"D4:4":                 `did you mean "d4"`,
		"z3:4":                 "does not tile",
		"d4:":                  `"" is not a number`,
		"d4:4,":                `"" is not a number`,
		"d4:04":                `"04" is not a number`,
		"d4:+4":                `"+4" is not a number`,
		"d4:1":                 "too small",
		"d4:17":                "too large",
		"e8:5":                 "too large",
		"d4:16,16,16,16":       "multiply to more",
		"z1:256":               "its leaders reach 128",
		"z2:2,256":             "its leaders reach 128",
		"z1:2,2,2,2,2,2,2,2,2": "9 radices",
		"d4:4:3,4":             "do not begin with g",
		"d4:4:g":               `"" is not a number`,
		"d4:4:g4,3":            "not ascending",
		"d4:4:g3,3":            "not ascending",
		"d4:4:g0,3":            "out of range",
		"d4:4:g3,128":          "out of range",
		"d4:4:g3":              "only rescales the step",
		"d4:4:g1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17": "17 gains",
		"d4:99999999999999999999":                         "is not a number",
	} {
		_, err := ParseCodec(s)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseCodec(%q): error %v, want one with %q", s, err, want)
		}
	}
}

func FuzzParseCodec(f *testing.F) {
	for _, s := range []string{"d4:4,4:g3,4,5,7", "e8:2,2", "z1:16", "d4:2,4:g1", "", ":", "d4:4:g", "d4:4096"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCodec(s)
		if err != nil {
			return
		}
		again, err := ParseCodec(c.String())
		if err != nil {
			t.Fatalf("ParseCodec(%q) of ParseCodec(%q): %v", c, s, err)
		}
		if again.String() != c.String() || !cmp.Equal(again.Radices(), c.Radices()) || !cmp.Equal(again.Gains(), c.Gains()) {
			t.Fatalf("%q parses to %v and then to %v", s, c, again)
		}
	})
}

func TestPresets(t *testing.T) {
	for bits := 2; bits <= 4; bits++ {
		c, err := Preset(bits)
		if err != nil {
			t.Fatal(err)
		}
		if c.Rate() != float64(bits)+0.25 || c.StoredBits() != 8*bits+2 || len(c.Gains()) != 4 {
			t.Errorf("preset %d is %v: %v bits per weight, %d bits per group", bits, c, c.Rate(), c.StoredBits())
		}
		if gains := c.Gains(); c.MaxAbs()*gains[len(gains)-1] > 127 {
			t.Errorf("preset %d, %v, does not decode to int8", bits, c)
		}
	}
	for _, bits := range []int{-1, 0, 1, 5, 8} {
		if _, err := Preset(bits); err == nil {
			t.Errorf("Preset(%d): want an error", bits)
		}
	}
}

// Fact 17: rates.
func TestRate(t *testing.T) {
	for _, test := range []struct {
		codec  string
		rate   float64
		stored int // bits per group of 8
	}{
		{"d4:4,4", 4, 32},
		{"d4:4,4:g3,4,5,6", 4.25, 34},
		{"d4:2,4:g3,4,5,7", 3.25, 26},
		{"d4:4:g3,4,5,7", 2.25, 18},
		{"e8:3", math.Log2(3), 13},
		{"z1:16", 4, 32},
		{"e8:2,2,2:g1,2,3", 3 + math.Log2(3)/8, 26},
	} {
		c := mustCodec(t, test.codec)
		if math.Abs(c.Rate()-test.rate) > 1e-12 || c.StoredBits() != test.stored {
			t.Errorf("%v: rate %v and %d bits per group, want %v and %d", c, c.Rate(), c.StoredBits(), test.rate, test.stored)
		}
	}
	c := mustCodec(t, "e8:3")
	if ideal := 8 * c.Rate(); c.IndexBits(0) != 13 || math.Abs(ideal-12.68) > 0.005 {
		t.Errorf("e8:3 stores %d bits per level, ideal %.3f: want 13 and 12.68", c.IndexBits(0), ideal)
	}
}

// forEachCode calls f with the class indices, and the integer point, of every code word of a block.
func forEachCode(c *Codec, f func(class [MaxLevels]uint16, v [MaxDim]int32)) {
	total := 1
	for _, t := range c.leaders {
		total *= t.Len()
	}
	for n := range total {
		var class [MaxLevels]uint16
		var v [MaxDim]int32
		rest := n
		for m, t := range c.leaders {
			class[m] = uint16(rest % t.Len())
			rest /= t.Len()
			for j, leader := range t.At(int(class[m])) {
				v[j] += c.weights[m] * leader
			}
		}
		f(class, v)
	}
}

// Facts 6 and 13: all code words are distinct, encode to the digits they came from, and have mean 0 once centred.
func TestCodebook(t *testing.T) {
	for _, test := range []struct {
		codec string
		words int
	}{{"d4:4,4", 65536}, {"e8:2,2", 65536}, {"e8:4", 65536}, {"d4:3,3", 6561}, {"d4:2,4", 4096}, {"d4:4,2", 4096}, {"z2:3,4", 144}, {"z1:2,2,2,2", 16}} {
		c := mustCodec(t, test.codec)
		seen := make(map[[MaxDim]int32]bool)
		var mean [MaxDim]float64
		var one int32
		forEachCode(c, func(class [MaxLevels]uint16, v [MaxDim]int32) {
			seen[v] = true
			var got [MaxLevels]uint16
			if !c.digits(&got, &v) || got != class {
				t.Fatalf("%v: point %v of digits %v has digits %v", c, v, class, got)
			}
			for j := range c.dim {
				mean[j] += float64(v[j]) - float64(c.centre[j])
				one = max(one, v[j], -v[j])
			}
		})
		if len(seen) != test.words {
			t.Errorf("%v: %d distinct code words, want %d", c, len(seen), test.words)
		}
		for j := range c.dim {
			// The centre is rounded to float32.
			if m := mean[j] / float64(test.words); math.Abs(m) > 1e-6 {
				t.Errorf("%v: centred mean %g in coordinate %d", c, m, j)
			}
		}
		if c.MaxAbs() != int(one) {
			t.Errorf("%v: largest coordinate %d, want %d", c, one, c.MaxAbs())
		}
	}
}

var blockCodecs = []string{"d4:4,4", "d4:3,3", "d4:2,4", "d4:3,3,3", "e8:2,2", "e8:3,2", "e8:4", "z1:16", "z2:3,5", "z4:4", "z8:2,3"}

// Fact 7: a point decodes to itself if and only if it does not overload.
func TestDigitsOfAnyPoint(t *testing.T) {
	for _, s := range blockCodecs {
		c := mustCodec(t, s)
		t.Run(s, rapid.MakeCheck(func(t *rapid.T) {
			p := drawPoint(t, c.lattice, rapid.SampledFrom([]int32{2, 8, 1000}).Draw(t, "range"))
			var v, back [MaxDim]int32
			copy(v[:], p)
			var class [MaxLevels]uint16
			ok := c.digits(&class, &v)
			for m, leaders := range c.leaders {
				for j, leader := range leaders.At(int(class[m])) {
					back[j] += c.weights[m] * leader
				}
			}
			if ok != (back == v) {
				t.Fatalf("point %v: in the code %v, decodes to %v", v, ok, back)
			}
		}))
	}
}

// Fact 8: the code holds every point strictly inside q^M(1−r)V and none outside q^M(1+r)V, q^M·r = (q^M − q)/(q − 1).
func TestOverloadRegion(t *testing.T) {
	skipMonteCarlo(t)
	for _, test := range []struct {
		lattice   Lattice
		q, levels int
	}{{D4, 4, 2}, {D4, 3, 3}, {E8, 3, 2}, {E8, 2, 3}} {
		c, err := NewCodec(test.lattice, Uniform(test.q, test.levels), nil)
		if err != nil {
			t.Fatal(err)
		}
		power := 1
		for range test.levels {
			power *= test.q
		}
		r := (power - test.q) / (test.q - 1)
		minimal := minimalVectors(c.lattice)
		rng := rand.New(rand.NewPCG(8, 8))
		inside, outside := 0, 0
		for i := range 100_000 {
			sigma := float64(power+r) / 3
			if i%2 == 0 {
				sigma = float64(power-r) / 3
			}
			x := make([]float64, c.dim)
			for j := range x {
				x[j] = rng.NormFloat64() * sigma
			}
			var v [MaxDim]int32
			c.lattice.Nearest(v[:], x)
			// v is in s·V if 2<v, m> <= s·|m|² for all minimal m.
			inner, outer := true, false
			for _, m := range minimal {
				var dot int
				for j := range m {
					dot += 2 * int(v[j]) * int(m[j])
				}
				inner = inner && dot < (power-r)*int(norm2(m))
				outer = outer || dot > (power+r)*int(norm2(m))
			}
			var class [MaxLevels]uint16
			ok := c.digits(&class, &v)
			if inner {
				inside++
			}
			if outer {
				outside++
			}
			if inner && !ok || outer && ok {
				t.Fatalf("%v: point %v is inside %v, outside %v, in the code %v", c, v, inner, outer, ok)
			}
		}
		if inside < 300 || outside < 1000 {
			t.Errorf("%v: only %d points inside and %d outside were tried", c, inside, outside)
		}
	}
}

// Every codec that can be written holds its centre, so that clamping ends.
func TestCodecsHoldTheirCentre(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := rapid.SampledFrom([]Lattice{Z1, Z2, Z4, Z8, D4, E8}).Draw(t, "lattice")
		radices := rapid.SliceOfN(rapid.IntRange(2, 16), 1, 5).Draw(t, "radices")
		_, err := NewCodec(l, radices, nil)
		if err != nil && strings.Contains(err.Error(), "centre") {
			t.Fatal(err)
		}
	})
}

// What a codec says of itself suffices to decode: a decoder elsewhere, as that of a kernel, is made of nothing else.
func TestAccessorsDecode(t *testing.T) {
	for _, name := range []string{"d4:4,4:g3,4,5,7", "d4:2,4", "e8:2,3:g1,2", "z2:5,3", "z8:2:g1,2"} {
		c := mustCodec(t, name)
		const step, groups = 0.1, 3
		row, want, got := gaussianRow(11, groups*GroupSize), make([]float32, groups*GroupSize), make([]float32, groups*GroupSize)
		indices, gains := make([]uint16, groups*c.GroupIndices()), make([]uint8, groups)
		if _, err := c.EncodeRow(indices, gains, row, step); err != nil {
			t.Fatal(err)
		}
		if err := c.DecodeRow(want, indices, gains, step); err != nil {
			t.Fatal(err)
		}
		d, centre, reach := c.Lattice().Dim(), c.Centre(), c.Arithmetic()
		for g := range groups {
			for b := range c.Blocks() {
				v := make([]int, d)
				for m := range c.Levels() {
					leaders := c.Leaders(m)
					if leaders.Radix() != c.Radices()[m] {
						t.Fatalf("%s: the leaders of level %d are of radix %d", name, m, leaders.Radix())
					}
					for j, x := range leaders.At(int(indices[g*c.GroupIndices()+m*c.Blocks()+b])) {
						v[j] += c.LevelWeight(m) * int(x)
					}
				}
				for j, x := range v {
					if x > c.MaxAbs() || -x > c.MaxAbs() || reach.ReachOne != float32(c.MaxAbs()) || reach.ReachTwo > 2*reach.ReachOne {
						t.Errorf("%s: coordinate %d, bounds %d and %+v", name, x, c.MaxAbs(), reach)
					}
					got[g*GroupSize+b*d+j] = step * float32(c.Gains()[gains[g]]) * (float32(x) - centre[j])
				}
			}
		}
		for i := range want {
			if math.Abs(float64(got[i]-want[i])) > 1e-5 {
				t.Fatalf("%s: weight %d is %v by the accessors, %v by DecodeRow", name, i, got[i], want[i])
			}
		}
	}
}

func ExampleParseCodec() {
	c, err := ParseCodec("d4:4,4:g2,3,4,5")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(c.Lattice(), c.Radices(), c.Gains())
	fmt.Println(c.Rate(), "bits per weight,", c.Blocks(), "blocks and", c.GroupIndices(), "bytes of indices per group")
	_, err = ParseCodec("d4:4,4:3,4")
	fmt.Println(err)
	// Output:
	// d4 [4 4] [2 3 4 5]
	// 4.25 bits per weight, 2 blocks and 4 bytes of indices per group
	// lattice: codec "d4:4,4:3,4": gains "3,4" do not begin with g, as in g3,4,5,7
}
