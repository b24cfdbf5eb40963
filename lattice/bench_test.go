package lattice

import (
	"math/rand/v2"
	"testing"
)

func gaussianRow(seed uint64, n int) []float32 {
	rng := rand.New(rand.NewPCG(seed, 1))
	row := make([]float32, n)
	for i := range row {
		row[i] = float32(rng.NormFloat64())
	}
	return row
}

func mustCodec(tb testing.TB, s string) *Codec {
	tb.Helper()
	c, err := ParseCodec(s)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func benchmarkRow(b *testing.B, codec string, step float32) {
	c := mustCodec(b, codec)
	row := gaussianRow(7, 4096)
	codes, err := c.NewCodes(1, len(row))
	if err != nil {
		b.Fatal(err)
	}
	step *= c.NominalStep()
	for b.Loop() {
		if _, err := c.EncodeRow(codes.Indices, codes.Gains, row, step); err != nil {
			b.Fatal(err)
		}
	}
	perOp := float64(b.Elapsed().Nanoseconds()) / float64(b.N)
	b.ReportMetric(float64(len(row))/perOp*1e3, "Mweights/s")
	b.ReportMetric(perOp/float64(len(row)/GroupSize)/float64(len(c.gains)), "ns/group/gain")
}

func BenchmarkEncodeRow(b *testing.B) {
	for _, codec := range []string{
		"d4:4,4:g2,3,4,5", "d4:2,4:g3,4,5,7", "d4:4:g3,4,5,7",
		"d4:4,4", "d4:3,3", "e8:4", "e8:2,2:g3,4,5,7", "z1:16",
	} {
		b.Run(codec, func(b *testing.B) { benchmarkRow(b, codec, 1) })
	}
}

// BenchmarkEncodeRowOverloading codes with half the best step, where most gains overload.
func BenchmarkEncodeRowOverloading(b *testing.B) {
	b.Run("d4:4,4:g2,3,4,5", func(b *testing.B) { benchmarkRow(b, "d4:4,4:g2,3,4,5", 0.5) })
}

func BenchmarkDecodeRow(b *testing.B) {
	c := mustCodec(b, "d4:4,4:g2,3,4,5")
	row := gaussianRow(7, 4096)
	codes, err := c.NewCodes(1, len(row))
	if err != nil {
		b.Fatal(err)
	}
	if _, err := c.EncodeRow(codes.Indices, codes.Gains, row, c.NominalStep()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := c.DecodeRow(row, codes.Indices, codes.Gains, 1); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(row))/(float64(b.Elapsed().Nanoseconds())/float64(b.N))*1e3, "Mweights/s")
}
