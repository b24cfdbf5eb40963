package lattice

import (
	"math"
	"testing"
	"time"
)

func mustLeaders(tb testing.TB, l Lattice, q int) *Leaders {
	tb.Helper()
	t, err := l.Leaders(q)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

// Fact 4: norms of the leaders, which do not depend on the tie rule. Squared norms are in real coordinates.
func TestLeaderNorms(t *testing.T) {
	for _, test := range []struct {
		lattice Lattice
		q       int
		counts  []int // at squared norm 0, 2, 4, …
	}{
		{E8, 2, []int{1, 120, 135}},
		{E8, 3, []int{1, 240, 2160, 2240, 1920}},
		{E8, 4, []int{1, 240, 2160, 6720, 17400, 15120, 15120, 8640, 135}},
		{D4, 4, []int{1, 24, 24, 96, 12, 72, 24, 0, 3}},
	} {
		leaders := mustLeaders(t, test.lattice, test.q)
		counts := make([]int, len(test.counts))
		scale := int32(1 / test.lattice.Unit())
		for k := range leaders.Len() {
			counts[norm2(leaders.At(k))/(scale*scale)/2]++
		}
		for i, want := range test.counts {
			if counts[i] != want {
				t.Errorf("%v/%d%v: %d leaders of squared norm %d, want %d", test.lattice, test.q, test.lattice, counts[i], 2*i, want)
			}
		}
	}
}

// Fact 5: mean energy of the leaders per dimension.
func TestLeaderEnergy(t *testing.T) {
	for _, test := range []struct {
		lattice Lattice
		q       int
		want    float64
	}{{D4, 4, 1.8281}, {E8, 2, 0.3809}, {E8, 3, 0.7225}, {E8, 4, 1.2291}} {
		leaders := mustLeaders(t, test.lattice, test.q)
		var sum float64
		for k := range leaders.Len() {
			sum += float64(norm2(leaders.At(k)))
		}
		u := test.lattice.Unit()
		if got := sum * u * u / float64(leaders.Len()*test.lattice.Dim()); math.Abs(got-test.want) > 5e-5 {
			t.Errorf("%v q=%d: energy per dimension %.5f, want %.4f", test.lattice, test.q, got, test.want)
		}
	}
}

// Every leader is a lattice point of its own class, in the closed cell q·V, and the class of 0 has leader 0.
func TestLeadersAreLeaders(t *testing.T) {
	for _, l := range allLattices {
		minimal := minimalVectors(l)
		for _, q := range []int{2, 3, 4, 5, 7, 16} {
			leaders, err := l.Leaders(q)
			if err != nil {
				continue
			}
			if leaders.Lattice() != l || leaders.Radix() != q {
				t.Errorf("%v q=%d: a table of %v with q=%d", l, q, leaders.Lattice(), leaders.Radix())
			}
			if norm2(leaders.At(0)) != 0 {
				t.Errorf("%v q=%d: class 0 has leader %v", l, q, leaders.At(0))
			}
			for k := range leaders.Len() {
				p := leaders.At(k)
				if !l.Contains(p) || l.Class(p, q) != uint32(k) {
					t.Fatalf("%v q=%d: leader %v of class %d has class %d", l, q, p, k, l.Class(p, q))
				}
				digits, other := make([]int32, len(p)), make([]int32, len(p))
				l.Digits(digits, uint32(k), q)
				if l.Point(other, digits); l.Class(other, q) != uint32(k) {
					t.Fatalf("%v q=%d: the point %v of the digits %v of class %d is of class %d", l, q, other, digits, k, l.Class(other, q))
				}
				for _, m := range minimal {
					var dot int32
					for j := range p {
						dot += p[j] * m[j]
					}
					if 2*dot > int32(q)*norm2(m) {
						t.Fatalf("%v q=%d: leader %v of class %d is not shortest", l, q, p, k)
					}
				}
			}
		}
	}
}

// The tie rule is part of every stored code: these fingerprints never change under one TieRuleVersion.
func TestTieRule(t *testing.T) {
	if TieRuleVersion != 1 {
		t.Fatal("a new tie rule needs new fingerprints, and readers for the old ones")
	}
	for _, test := range []struct {
		lattice Lattice
		q       int
		crc     uint32
	}{
		{Z1, 2, 0xdd9eb80c},
		{Z1, 3, 0x69c4e612},
		{Z1, 4, 0xeb8020a4},
		{Z1, 5, 0xc54a9468},
		{Z1, 8, 0x5ac1c216},
		{Z1, 16, 0x0a0bb2df},
		{Z2, 2, 0x0e142967},
		{Z2, 3, 0xc5922988},
		{Z2, 4, 0x22024e6e},
		{Z2, 5, 0x24a1e7e3},
		{Z2, 8, 0x04cbda66},
		{Z2, 16, 0x562ab27e},
		{Z4, 2, 0xe70a222e},
		{Z4, 3, 0xaeb23245},
		{Z4, 4, 0x51341753},
		{Z4, 5, 0xae54bfd0},
		{Z4, 8, 0x7c440e28},
		{Z4, 16, 0x0e4de3b0},
		{Z8, 2, 0xbccf5866},
		{Z8, 3, 0x2f139555},
		{Z8, 4, 0x70a6973d},
		{D4, 2, 0xdd313c12},
		{D4, 3, 0xf3d8d751},
		{D4, 4, 0xbe89fb5a},
		{D4, 5, 0x8a02142b},
		{D4, 8, 0x5292048c},
		{D4, 16, 0x0fe644fa},
		{E8, 2, 0xff3da33d},
		{E8, 3, 0x6e234c76},
		{E8, 4, 0x670b2b28},
	} {
		if got := mustLeaders(t, test.lattice, test.q).CRC32(); got != test.crc {
			t.Errorf("%v q=%d: CRC-32 %#08x, want %#08x", test.lattice, test.q, got, test.crc)
		}
	}
}

// ε decides every tie by a margin far above the rounding of float64.
func TestTieBreakIsGeneric(t *testing.T) {
	for _, l := range []Lattice{Z8, D4, E8} {
		d := l.Dim()
		vectors := minimalVectors(l)
		for _, m := range vectors {
			var dot float64
			for j := range d {
				dot += float64(m[j]) * l.Unit() * tieBreak[j]
			}
			if math.Abs(dot) < 1e-10 {
				t.Errorf("%v: ε·%v = %g does not decide", l, m, dot)
			}
		}
	}
}

func TestLeadersErrors(t *testing.T) {
	for _, test := range []struct {
		lattice Lattice
		q       int
	}{{0, 4}, {D4, 1}, {D4, 0}, {D4, -2}, {E8, 5}, {D4, 17}, {Z1, 1<<16 + 1}, {D4, math.MaxInt}} {
		if _, err := test.lattice.Leaders(test.q); err == nil {
			t.Errorf("Leaders of %v with q=%d: want an error", test.lattice, test.q)
		}
	}
}

// A table takes no more than some look-ups of a nearest point for each class: nothing is searched for.
func TestLeadersAreBuiltFast(t *testing.T) {
	if testing.Short() {
		t.Skip("times a table, skipped by -short")
	}
	least := func(work func()) time.Duration {
		least := time.Hour
		for range 5 {
			start := time.Now()
			work()
			least = min(least, time.Since(start))
		}
		return least
	}
	for _, test := range []struct {
		lattice Lattice
		q       int
	}{{E8, 4}, {D4, 16}} {
		var table *Leaders
		built := least(func() { table = buildLeaders(test.lattice, test.q) })
		nearest := least(func() {
			var v [MaxDim]int32
			x := [MaxDim]float64{0.3, -0.4, 0.1, 0.2, -0.3, 0.45, 0.15, -0.25}
			for range table.Len() {
				test.lattice.Nearest(v[:], x[:])
			}
		})
		if built > 20*nearest {
			t.Errorf("%v q=%d took %v, the nearest points %v", test.lattice, test.q, built, nearest)
		}
		t.Logf("%v q=%d: %.1f nearest points for each class", test.lattice, test.q, float64(built)/float64(nearest))
	}
}
