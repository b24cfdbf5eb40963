package cudaops

// ObserveName is the operator ai.coset::Observe, version [OpVersion], which calibration puts behind the activations of a
// float model: it adds the second moments of its input A [..., K] to what the library keeps under the tag, and gives the
// number of these rows as float32 [1]. It has no function body; only the native library runs it.
//
// Any further inputs are the gradients, [..., N], of a loss at the outputs of the layers that read A, one for every row of A.
// A row x then weighs g = Σ‖dy‖², what an error of the layer at this row costs, in proportion to the rows of the same call:
//
//	w = (1 − ε)·g / Σ g·‖x‖² + ε / (T·‖x‖²)
//
// over the T rows of the call; ε, [EvenShare], is left to all rows alike. Without gradients w = 1, or with g = 1 as above where the
// attribute alike is set. A single row has w = 1. ‖x‖² below 10⁻⁶⁰ counts as 0, and 1 / 0 as well.
const ObserveName = "Observe"

// Attributes of Observe.
const (
	AttrTag   = "tag"   // string: the name under which the statistics are kept, whatever session adds to them
	AttrMode  = "mode"  // string: one of the modes
	AttrAlike = "alike" // int: not 0 where all rows of a call have the same g, and no gradients are given; 0 if left out
)

// EvenShare is the part of a call's moments to which each row contributes alike.
const EvenShare = 0.7

// Modes of Observe.
const (
	ModeFull     = "full"     // Σ A Aᵀ, [K × K]
	ModeDiagonal = "diagonal" // Σ A², [K]
	ModeOff      = "off"      // nothing: the runtime sees the same graph, and computes the same numbers, as with the others
)
