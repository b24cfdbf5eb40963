// Package cudaops holds the contract of the operators ai.coset::HNLQLinear and HNLQGather and finds the native library that runs it.
//
// schema.go is the single definition of the operator's names; `go generate` writes the C++ header from it. The native
// sources live in subfolders without Go files (src, include, test, bench) and are built by build.mk with g++ alone; this
// package itself needs no cgo. docs/ops.md describes the operator, docs/format.md the bytes of its tensors.
package cudaops

//go:generate go run ./internal/genheader -o include/cosetq/schema.h

// Identity of the operators: HNLQLinear multiplies by a coded weight, HNLQGather takes rows out of one.
const (
	Domain     = "ai.coset"
	OpName     = "HNLQLinear"
	GatherName = "HNLQGather"
	OpVersion  = 1
)

// APIVersion is the version of ONNX Runtime's C API that the library is compiled against. Version 24 holds everything the
// library needs, so that one file runs on ONNX Runtime 1.24 and all later ones.
const APIVersion = 24

// MinORTVersion is the oldest ONNX Runtime that offers [APIVersion].
const MinORTVersion = "1.24"

// LibraryName is the file name of the native library, CUDALibraryName that of the kernels for NVIDIA GPUs.
const (
	LibraryName     = "libcosetq.so"
	CUDALibraryName = "libcosetq_cuda.so"
)

// RegisterSymbol is the function that ONNX Runtime looks for in a custom-op library.
const RegisterSymbol = "RegisterCustomOps"

// EnvISA names the environment variable that forces one of [ISAs] instead of the best one the processor has.
const EnvISA = "COSETQ_ISA"

// How closely kernels keep activations: AccuracyAccurate stays within 1e-4 of the result, AccuracyFast rounds activations to 8
// bits, AccuracyDefault is the latter where the former would be slower than float (docs/ops.md). A session says it for all nodes by the config entry [ConfigAccuracy];
// without it a node's attribute [AttrAccuracy] counts, then the environment variable [EnvAccuracy], meant for experiments.
const (
	AccuracyDefault  = 0
	AccuracyAccurate = 1
	AccuracyFast     = 4

	ConfigAccuracy = "ai.coset.accuracy"
	EnvAccuracy    = "COSETQ_ACCURACY"
	AttrAccuracy   = "accuracy" // optional, so not among [Attributes], which the function body declares
)

// ISAs lists the instruction sets with kernels of their own, slowest first.
var ISAs = []string{"portable", "avx2", "avxvnni", "avx512", "amx"}

// MaxTile is the largest number of rows in one tile of codes, GroupSize the number of weights in a group and MaxGains the
// longest list of gains.
const (
	MaxTile   = 64
	GroupSize = 8
	MaxGains  = 16
)

// Rotation turns activations by A·diag(s)·blockdiag(H/√B): s are signs, H is the Hadamard matrix of a block of B columns, a
// power of two. MaxRotation is the largest B. A B of 1 with no sign set is no rotation.
const MaxRotation = 256

// ScaleTableSize is the number of scales of a weight whose rows index a table.
const ScaleTableSize = 16

// Inputs in order. All but the first are constant initializers. The last, the signs of a rotation, is optional: either no node
// of a model has it, or all have it and the function takes it.
const (
	InputA          = "A"
	InputCodes      = "codes"
	InputScales     = "scales"
	InputScaleIndex = "scale_index"
	InputCodebook   = "codebook"
	InputGains      = "gains"
	InputBias       = "bias"
	InputSigns      = "signs"
)

// InputIndices takes the place of [InputA] in HNLQGather: the numbers of rows, int32 or int64, negative ones from the end.
const InputIndices = "indices"

// GatherInputs returns the input names of HNLQGather in order: those of a weight stand where HNLQLinear has them.
func GatherInputs() []string {
	return []string{InputIndices, InputCodes, InputScales, InputScaleIndex, InputCodebook, InputGains}
}

// OutputY is the only output.
const OutputY = "Y"

// PlainInputs is the number of inputs of a node without rotation.
const PlainInputs = 7

// Inputs returns the input names in order.
func Inputs() []string {
	return []string{InputA, InputCodes, InputScales, InputScaleIndex, InputCodebook, InputGains, InputBias, InputSigns}
}

// Attributes that the kernels read.
const (
	AttrK             = "K"
	AttrN             = "N"
	AttrCodec         = "codec"
	AttrSlots         = "slots"
	AttrLevelWeights  = "level_weights"
	AttrCentre        = "centre"
	AttrGainValues    = "gain_values"
	AttrGainDivisors  = "gain_divisors"
	AttrScaleDivisors = "scale_divisors"
	AttrComputeType   = "compute_type"
	AttrRotation      = "rotation" // B, only with the input signs
)

// Attributes that only the function body reads. The first four spare every node of every model the steps that would derive them from the others
// (docs/ops.md); shape is there from opset 10 on, the rest in opsets 7 to 9, whose Slice has attributes.
const (
	AttrTableFactors    = "table_factors"
	AttrTableShift      = "table_shift"
	AttrTableRows       = "table_rows"
	AttrDigitsShape     = "digits_shape"
	AttrShape           = "shape"
	AttrShapeInts       = "shape_ints"
	AttrRowsInts        = "rows_ints"
	AttrShapeGroupsInts = "shape_groups_ints"
	AttrRotationInts    = "rotation_ints"
	AttrColumnsInts     = "columns_ints"
)

// Attributes returns the names of all attributes, those of the kernels first.
func Attributes() []string {
	return []string{
		AttrK, AttrN, AttrCodec, AttrSlots, AttrLevelWeights, AttrCentre, AttrGainValues, AttrGainDivisors,
		AttrScaleDivisors, AttrComputeType, AttrRotation,
		AttrTableFactors, AttrTableShift, AttrTableRows, AttrDigitsShape,
		AttrShape, AttrShapeInts, AttrRowsInts, AttrShapeGroupsInts, AttrRotationInts, AttrColumnsInts,
	}
}

// Rows of the attribute slots: where a digit stands and which row of the codebook it names.
const (
	SlotElement = iota
	SlotDivisor
	SlotModulus
	SlotBase
	SlotFields // number of rows
)
