// Package quant turns one weight matrix into codes: the scale of every row, the
// code of every group, and the byte layout of docs/format.md. It knows nothing
// of models or files.
//
// A matrix W [N × K] is read row by row from a [Source]. Its columns are taken
// in strided groups of 8 (group g holds columns g, g+G, …, g+7G with
// G = ⌈K/8⌉): neighbouring columns of real layers are correlated, and error
// feedback loses most of its gain when they share a block.
//
// [Quantize] with method "rtn" rounds to nearest. The step of a row is not a
// multiple of its rms but the one of least squared error, found by search:
// heavy-tailed rows want steps that no rule gives. Short rows share 16 scales
// (4 bits per row), because a float16 scale would cost a row of 192 weights
// 0.083 bit per weight.
//
// Symbols: W [N × K] weight, T tile of rows, G groups of a row, e exponent of the
// scales; step, gain, centre and digits as in package lattice.
package quant
