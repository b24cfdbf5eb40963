package lattice

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Fact 10: the two-sided table of D4 with q = 4.
func TestPairTable(t *testing.T) {
	leaders := mustLeaders(t, D4, 4)
	table, err := NewPairTable(leaders, leaders)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(table.Entries()); n != 65536 {
		t.Errorf("%d entries, want 65536", n)
	}
	if low, high := slices.Min(table.Entries()), slices.Max(table.Entries()); low < -16 || high != 16 {
		t.Errorf("entries from %d to %d, want at least -16, and 16", low, high)
	}
	for i := range 256 {
		for k := range i {
			if table.At(i, k) != table.At(k, i) {
				t.Fatalf("entries (%d,%d) and (%d,%d) differ", i, k, k, i)
			}
		}
	}
}

func TestPairTableErrors(t *testing.T) {
	if _, err := NewPairTable(mustLeaders(t, D4, 4), mustLeaders(t, Z4, 4)); err == nil {
		t.Error("two-sided table of two lattices: want an error")
	}
	if _, err := NewPairTable(mustLeaders(t, E8, 4), mustLeaders(t, E8, 4)); err == nil {
		t.Error("two-sided table of E8 with q = 4: want an error")
	}
	if _, err := mustCodec(t, "e8:4").NewPairTables(); err == nil {
		t.Error("two-sided tables of e8:4: want an error")
	}
}

var pairCodecs = []string{"d4:4,4:g2,3,4,5", "d4:2,4:g3,4,5,7", "d4:4,4", "e8:2,2:g1,3", "z1:16", "z2:4,3"}

// Fact 10: sums of look-ups are the inner products of integer points, exactly.
func TestDotPointsIsExact(t *testing.T) {
	for _, s := range pairCodecs {
		c := mustCodec(t, s)
		tables, err := c.NewPairTables()
		if err != nil {
			t.Fatal(err)
		}
		t.Run(s, rapid.MakeCheck(func(t *rapid.T) {
			var groups [2][]uint16
			var points [2][GroupSize]int32
			for side := range groups {
				groups[side] = make([]uint16, c.GroupIndices())
				for i := range groups[side] {
					groups[side][i] = uint16(rapid.IntRange(0, c.leaders[i/c.Blocks()].Len()-1).Draw(t, "index"))
				}
				c.Points(&points[side], groups[side])
			}
			var want int64
			for j, x := range points[0] {
				want += int64(x) * int64(points[1][j])
			}
			if got := tables.DotPoints(groups[0], groups[1]); got != want {
				t.Fatalf("look-ups give %d, want %d", got, want)
			}
		}))
	}
}

// One-sided and two-sided look-ups, centre and gains included, give the inner products of the decoded weights.
func TestInnerProducts(t *testing.T) {
	const n = 256
	for _, s := range pairCodecs {
		c := mustCodec(t, s)
		pairs, err := c.NewPairTables()
		if err != nil {
			t.Fatal(err)
		}
		var rows [2]CodedRow
		var decoded [2][]float32
		for side := range rows {
			row := gaussianRow(uint64(20+side), n)
			codes, err := c.NewCodes(1, n)
			if err != nil {
				t.Fatal(err)
			}
			step := c.NominalStep() * (1 + 0.3*float32(side))
			if _, err := c.EncodeRow(codes.Indices, codes.Gains, row, step); err != nil {
				t.Fatal(err)
			}
			rows[side] = CodedRow{codes.Indices, codes.Gains, step}
			decoded[side] = make([]float32, n)
			if err := c.DecodeRow(decoded[side], codes.Indices, codes.Gains, step); err != nil {
				t.Fatal(err)
			}
		}
		query := gaussianRow(30, n)
		var oneSided, twoSided float64
		for j := range query {
			oneSided += float64(query[j]) * float64(decoded[0][j])
			twoSided += float64(decoded[0][j]) * float64(decoded[1][j])
		}
		table, err := c.NewQueryTable(query)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := table.Dot(rows[0].Indices, rows[0].Gains, rows[0].Step); err != nil || math.Abs(got-oneSided) > 1e-4 {
			t.Errorf("%v: one-sided %v, %v, want %v", c, got, err, oneSided)
		}
		if got, err := pairs.Dot(rows[0], rows[1]); err != nil || math.Abs(got-twoSided) > 1e-4 {
			t.Errorf("%v: two-sided %v, %v, want %v", c, got, err, twoSided)
		}
		if _, err := table.Dot(rows[0].Indices[1:], rows[0].Gains, 1); err == nil {
			t.Errorf("%v: one-sided product of a short row: want an error", c)
		}
		if _, err := pairs.Dot(rows[0], CodedRow{rows[1].Indices, rows[1].Gains[1:], 1}); err == nil {
			t.Errorf("%v: two-sided product of a short row: want an error", c)
		}
		if _, err := c.NewQueryTable(query[1:]); err == nil {
			t.Errorf("%v: query of %d numbers: want an error", c, n-1)
		}
	}
}

func ExampleCodec_NewQueryTable() {
	c, err := ParseCodec("d4:4,4:g2,3,4,5")
	if err != nil {
		fmt.Println(err)
		return
	}
	row := []float32{0.3, -1.2, 0.8, 0.1, -0.4, 2.1, -0.9, 0.5}
	query := []float32{1, 0, 2, 0, -1, 1, 0, 3}
	codes, err := c.NewCodes(1, len(row))
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := c.EncodeRow(codes.Indices, codes.Gains, row, 0.07); err != nil {
		fmt.Println(err)
		return
	}
	table, err := c.NewQueryTable(query)
	if err != nil {
		fmt.Println(err)
		return
	}
	dot, err := table.Dot(codes.Indices, codes.Gains, 0.07)
	fmt.Printf("%.3f %v\n", dot, err) // the float row gives 5.9
	// Output:
	// 5.887 <nil>
}
