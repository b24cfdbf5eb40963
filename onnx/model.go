package onnx

// Model is a whole ONNX model (ModelProto).
type Model struct {
	IRVersion       int64
	ProducerName    string
	ProducerVersion string
	Domain          string
	ModelVersion    int64
	DocString       string
	Graph           *Graph
	OpsetImports    []*OpsetImport
	MetadataProps   []*Property
	TrainingInfo    []*TrainingInfo
	Functions       []*Function
	Configurations  []*DeviceConfiguration

	source
}

// OpsetImport names the version of one operator set (OperatorSetIdProto).
// The domain "" is the standard one, also spelled "ai.onnx".
type OpsetImport struct {
	Domain  string
	Version int64

	source
}

// Property is a key and its value (StringStringEntryProto).
type Property struct {
	Key, Value string

	source
}

// Graph is a main graph or a subgraph held by an attribute (GraphProto).
type Graph struct {
	Nodes                   []*Node
	Name                    string
	Initializers            []*Tensor
	DocString               string
	Inputs                  []*ValueInfo
	Outputs                 []*ValueInfo
	ValueInfo               []*ValueInfo
	QuantizationAnnotations []*TensorAnnotation
	SparseInitializers      []*SparseTensor
	MetadataProps           []*Property

	source
}

// Node is one operation (NodeProto). An empty input name stands for an omitted
// optional input, an empty output name for an output nobody wants.
type Node struct {
	Inputs               []string
	Outputs              []string
	Name                 string
	OpType               string
	Attributes           []*Attribute
	DocString            string
	Domain               string
	Overload             string
	MetadataProps        []*Property
	DeviceConfigurations []*NodeDeviceConfiguration

	source
}

// Attribute is a named constant of a node (AttributeProto). Type says which of
// the value fields is in use. RefAttrName, only inside a [Function], names the
// attribute of the function whose value this one takes.
type Attribute struct {
	Name          string
	F             float32
	I             int64
	S             []byte
	T             *Tensor
	G             *Graph
	Floats        []float32
	Ints          []int64
	Strings       [][]byte
	Tensors       []*Tensor
	Graphs        []*Graph
	DocString     string
	TypeProto     *Type
	TypeProtos    []*Type
	Type          AttributeType
	RefAttrName   string
	SparseTensor  *SparseTensor
	SparseTensors []*SparseTensor

	source
}

// Function is a model-local function (FunctionProto): a body of nodes with its
// own opset imports that stands for the operator Domain::Name.
type Function struct {
	Name            string
	Inputs          []string
	Outputs         []string
	Attributes      []string // attributes without a default
	Nodes           []*Node
	DocString       string
	OpsetImports    []*OpsetImport
	Domain          string
	AttributeProtos []*Attribute // attributes with a default
	ValueInfo       []*ValueInfo
	Overload        string
	MetadataProps   []*Property

	source
}

// TensorAnnotation names the quantization parameters of a value.
type TensorAnnotation struct {
	TensorName                string
	QuantParameterTensorNames []*Property

	source
}

// TrainingInfo holds the graphs of a training step (TrainingInfoProto).
type TrainingInfo struct {
	Initialization        *Graph
	Algorithm             *Graph
	InitializationBinding []*Property
	UpdateBinding         []*Property

	source
}

// DeviceConfiguration lists the devices of one multi-device configuration.
type DeviceConfiguration struct {
	Name       string
	NumDevices int32
	Devices    []string

	source
}

// NodeDeviceConfiguration places a node on devices.
type NodeDeviceConfiguration struct {
	ConfigurationID string
	ShardingSpecs   []*ShardingSpec
	PipelineStage   int32

	source
}

// ShardingSpec says how one tensor of a node is split over devices.
type ShardingSpec struct {
	TensorName            string
	Devices               []int64
	IndexToDeviceGroupMap []*IntIntList
	ShardedDims           []*ShardedDim

	source
}

// IntIntList is a key and its list of values (IntIntListEntryProto).
type IntIntList struct {
	Key    int64
	Values []int64

	source
}

// ShardedDim is the sharding of one axis.
type ShardedDim struct {
	Axis           int64
	SimpleSharding []*SimpleShardedDim

	source
}

// SimpleShardedDim splits a dimension into equal shards; see [Dim] for the first
// three fields.
type SimpleShardedDim struct {
	Value     int64
	HasValue  bool
	Param     string
	NumShards int64

	source
}

// AttributeType says which field of an [Attribute] holds its value.
type AttributeType int32

// The attribute types of ONNX.
const (
	AttrUndefined     AttributeType = 0
	AttrFloat         AttributeType = 1
	AttrInt           AttributeType = 2
	AttrString        AttributeType = 3
	AttrTensor        AttributeType = 4
	AttrGraph         AttributeType = 5
	AttrFloats        AttributeType = 6
	AttrInts          AttributeType = 7
	AttrStrings       AttributeType = 8
	AttrTensors       AttributeType = 9
	AttrGraphs        AttributeType = 10
	AttrSparseTensor  AttributeType = 11
	AttrSparseTensors AttributeType = 12
	AttrType          AttributeType = 13
	AttrTypes         AttributeType = 14
)
