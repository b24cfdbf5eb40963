// Package quant turns one weight matrix into codes: the scale of every row, the
// code of every group, and the byte layout of docs/format.md. It knows nothing
// of models or files.
//
// A matrix W [N × K] is read row by row from a [Source]. Its columns are taken
// in strided groups of 8 (group g holds columns g, g+G, …, g+7G with
// G = ⌈K/8⌉): neighbouring columns of real layers are correlated, and error
// feedback loses most of its gain when they share a block.
//
// Without more, [Quantize] rounds to nearest. The step of a row is not a
// multiple of its rms but the one of least squared error, found by search:
// heavy-tailed rows want steps that no rule gives. Short rows share 16 scales
// (4 bits per row), because a float16 scale would cost a row of 192 weights
// 0.083 bit per weight.
//
// With a [Hessian] of the layer's inputs, Quantize rounds by LDLQ over lattice
// groups (BlockLDLQ of QuIP#, arXiv 2402.04396; with blocks of one it is GPTQ,
// arXiv 2210.17323): the loss is tr(E·H·Eᵀ), E = W − Ŵ, and with H = L·D·Lᵀ a
// group is coded after it was moved by what the errors of the groups before it
// can still be made up for. Around that:
//
//   - Groups of loud inputs are coded first. The file does not know the order.
//   - Each gain is tried, and the best one taken in the metric of the group,
//     with feedback between its blocks.
//   - Each row is coded with a few steps, and keeps the best by measured loss,
//     rounding to nearest included.
//   - Refinement passes code every group again, given all others.
//   - Scales move to their closed-form optimum in the end.
//
// With the second moments G of the gradients at the outputs as well, the loss is tr(G·E·H·Eᵀ) (YAQA, arXiv 2505.22988): rows
// are coded in steps, and moved by what the errors of the rows before them can still be made up for.
//
// Measured on Gaussian rows of 256 weights with inputs of correlation
// ρ^|i−j|, loss over that of rounding to nearest at 2, 3 and 4 bits:
//
//	ρ = 0.9    0.20  0.20  0.21
//	ρ = 0.6    0.62  0.62  0.63
//
// Which codec each of many matrices should have within a budget is the question that a [Frontier] answers.
//
// Files: layout, pack and matrix hold the bytes; rtn and scale round to
// nearest; hessian, factor and metric prepare H; feedback, refine and refit are
// the parts of LDLQ, outputs is the feedback between rows, and ldlq joins them; allocate has the frontier.
//
// Symbols: W [N × K] weight, T tile of rows, G groups of a row, e exponent of the
// scales; H [K × K] second moments of the inputs and
// G [N × N] of the gradients at the outputs, λ damping; step, gain, centre and digits as in package lattice.
package quant
