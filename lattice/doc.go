// Package lattice implements Hierarchical Nested-Lattice Quantization (HNLQ): lattices with exact nearest-point
// search, coset-leader tables, the multi-level code built on them, and reference inner products by table look-up.
// It knows vectors and matrices of numbers and nothing of models, files or devices.
//
// # The code
//
// A block x of d numbers is moved to a lattice point v, and v is written in base q, one digit per level:
//
//	v = leader_0[k_0] + q_0·leader_1[k_1] + q_0·q_1·leader_2[k_2] + …        (level 0 is the finest)
//	x ≈ step · gain · (v − centre)
//
// A digit k_m is a class of Λ/q_mΛ, and its leader is the shortest point of that class (Voronoi-cell representative).
// All points reachable this way are distinct; a point that is not reachable is said to overload the code.
// The centre is the mean of all reachable points: without it half of a symmetric source overloads a code with q = 2.
// The gain is a small integer chosen for each group of [GroupSize] weights; it plays the part of the geometric
// scaling 2^(αT) of the paper at a fixed length.
//
// # Two entry points
//
// [Codec] is the fixed-length production code of float32 matrices (written "d4:4,4:g3,4,5,7"). [Quantizer] is the
// general float64 code of single vectors with everything the paper and the PyTorch library Coset offer: geometric
// scaling, dithers, unprotected overload, successive refinement.
//
// # Symbols
//
//	Λ, G            Lattice, Lattice.Generator
//	Q(x)            Lattice.Nearest
//	q, q_m          radix: Config.Radices, Codec.Radices (finest level first)
//	M               levels: len(radices)
//	A_q = Λ ∩ qV    Leaders
//	β               Config.Beta, and the step of a Codec
//	T, α            Code.T, Config.Alpha
//	R               Codec.Rate, Quantizer.Rate (bits per weight)
//
// Coordinates are integers throughout: a point of E8 is stored doubled, and a real coordinate is [Lattice.Unit] times
// the integer one.
//
// # Ties
//
// A lattice point divided by q often falls exactly on the boundary of a Voronoi cell, so a class may have several
// shortest points (15 of 16 classes of D4/2D4). Which one is the leader is part of the code. One rule, version
// [TieRuleVersion], settles it for every lattice and radix: the class {p + qλ} is represented by p − q·Q(p/q + ε) with
// p = G·b, the digits b in 0…q−1, and a fixed generic ε. Encoder and decoder only read the table that results, so
// decode(encode(v)) = v for every point that does not overload, however the source was rounded.
//
// # Sources
//
// I. Kaplan and O. Ordentlich, "High-Rate Nested-Lattice Quantized Matrix Multiplication with Small Lookup Tables",
// ISIT 2025, arXiv 2505.13164 (HNLQ). J. H. Conway and N. J. A. Sloane, "Fast quantizing and decoding algorithms for
// lattice quantizers and codes", IEEE Trans. Inf. Theory 28 (1982) (nearest points), and "A fast encoding method for
// lattice codes and quantizers", ibid. 29 (1983) (Voronoi codes). S. Savkin, E. Porat, O. Ordentlich and
// Y. Polyanskiy, "NestQuant", arXiv 2502.09720 (a choice of scales per block).
package lattice
