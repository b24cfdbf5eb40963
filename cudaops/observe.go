package cudaops

// ObserveName is the operator ai.coset::Observe, version [OpVersion], which calibration puts behind the activations of a
// float model: it adds the second moments of its input A [..., K] to what the library keeps under the tag, and gives the
// number of rows seen so far as float32 [1]. It has no function body; only the native library runs it.
const ObserveName = "Observe"

// Attributes of Observe.
const (
	AttrTag  = "tag"  // string: the name under which the statistics are kept, whatever session adds to them
	AttrMode = "mode" // string: one of the modes
)

// Modes of Observe.
const (
	ModeFull     = "full"     // Σ A Aᵀ, [K × K]
	ModeDiagonal = "diagonal" // Σ A², [K]
)
