package lattice

import (
	"fmt"
	"math"
)

// batchChunk is the number of vectors that one goroutine takes at a time.
const batchChunk = 256

// EncodeBatch codes n vectors, x being [n, d] row-major, on the given number of threads (0: one per CPU). Vector i is coded by
// EncodeAt(i), so the result does not depend on threads.
func (q *Quantizer) EncodeBatch(x []float64, threads int) ([]Code, error) {
	if len(x)%q.dim != 0 {
		return nil, fmt.Errorf("lattice: encode a batch of %d numbers: want a multiple of %d", len(x), q.dim)
	}
	codes := make([]Code, len(x)/q.dim)
	err := q.chunks(len(codes), threads, func(i int) (err error) {
		codes[i], err = q.EncodeAt(uint64(i), x[i*q.dim:(i+1)*q.dim])
		return err
	})
	if err != nil {
		return nil, err
	}
	return codes, nil
}

// DecodeBatch writes the vectors of codes to dst, [len(codes), d] row-major.
func (q *Quantizer) DecodeBatch(dst []float64, codes []Code, threads int) error {
	if len(dst) != len(codes)*q.dim {
		return fmt.Errorf("lattice: decode a batch of %d codes into %d numbers: want %d", len(codes), len(dst), len(codes)*q.dim)
	}
	return q.chunks(len(codes), threads, func(i int) error {
		return q.Decode(dst[i*q.dim:(i+1)*q.dim], codes[i])
	})
}

// QuantizeBatch writes to dst what x, [n, d] row-major, decodes to after coding, and returns the codes. dst may be x.
func (q *Quantizer) QuantizeBatch(dst, x []float64, threads int) ([]Code, error) {
	codes, err := q.EncodeBatch(x, threads)
	if err != nil {
		return nil, err
	}
	return codes, q.DecodeBatch(dst, codes, threads)
}

func (q *Quantizer) chunks(n, threads int, do func(i int) error) error {
	return parallel("chunk", (n+batchChunk-1)/batchChunk, threads, func(chunk int) error {
		for i := chunk * batchChunk; i < min(n, (chunk+1)*batchChunk); i++ {
			if err := do(i); err != nil {
				return fmt.Errorf("vector %d: %w", i, err)
			}
		}
		return nil
	})
}

// Rate returns the bits per weight of coded vectors: Σ_m log2 q_m + (log2(number of gains) + H(T))/d, H(T) being the entropy in
// bits of the scalings in codes. M = 2 levels of q = 4 have exactly 4.
func (q *Quantizer) Rate(codes []Code) float64 {
	var r float64
	for _, radix := range q.config.Radices {
		r += math.Log2(float64(radix))
	}
	count := make(map[int]int)
	last := 0
	for _, code := range codes {
		count[code.T]++
		last = max(last, code.T)
	}
	side := math.Log2(float64(len(q.gains)))
	for t := range last + 1 {
		if n := count[t]; n > 0 {
			p := float64(n) / float64(len(codes))
			side -= p * math.Log2(p)
		}
	}
	return r + side/float64(q.dim)
}
