package quant_test

import (
	"context"
	"fmt"
	"log"

	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/quant"
)

// A weight in memory, which implements Source, is coded and decoded again.
func ExampleQuantize() {
	codec, err := lattice.ParseCodec("d4:4,4:g3,4,5,6")
	if err != nil {
		log.Fatal(err)
	}
	weight := gaussian(64, 256, 1)
	r, err := quant.Quantize(context.Background(), weight, quant.Options{Codec: codec})
	if err != nil {
		log.Fatal(err)
	}
	row := make([]float32, 256)
	if err := r.Matrix.DecodeRows(row, 3, 4); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.2f bits per weight, %.1f dB\n", r.Matrix.BitsPerWeight(), r.SQNR())
	fmt.Printf("%.1f became %.1f\n", weight.w[3*256:3*256+4], row[:4])
	// Output:
	// 4.28 bits per weight, 23.2 dB
	// [-1.9 2.2 0.3 -0.7] became [-1.9 2.1 0.3 -0.7]
}
