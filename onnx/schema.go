package onnx

import "google.golang.org/protobuf/encoding/protowire"

// Message is any of the structs of this package that stand for a protobuf
// message, as a pointer. It cannot be implemented elsewhere.
type Message interface {
	// fields appends the schema of the message, in the order of the field
	// numbers, each entry pointing at the Go field that holds it. Decoding,
	// encoding, comparing and cloning all work from this one list.
	fields([]field) []field
	src() *source
}

// source is where a message came from.
type source struct {
	raw []byte    // the bytes it was parsed from, nil for a message made in Go
	doc *document // the file they lie in
}

func (s *source) src() *source { return s }

// field ties a field number to a Go field. The type behind p selects the wire
// form: *string, *[]string, *[]byte, *[][]byte, *int64, *int32, *float32,
// *[]int64, *[]float32, *bool is not used, packedField or messageField.
type field struct {
	num   protowire.Number
	name  string
	p     any
	oneof uint8 // members of the same non-zero group exclude each other; the last set wins
	has   *bool // explicit presence, where zero is a value of its own
	force bool  // written even when zero
}

// messageField is a Go field of type *T or []*T where *T is a Message.
type messageField interface {
	repeated() bool
	len() int
	at(i int) Message
	add() Message // appends, or sets the single one, to a new message
	put(Message)  // the same with a given message
	clear()
}

type msgPtr[T any] interface {
	*T
	Message
}

type one[T any, P msgPtr[T]] struct{ p **T }

func (o one[T, P]) repeated() bool { return false }
func (o one[T, P]) at(int) Message { return P(*o.p) }
func (o one[T, P]) add() Message   { *o.p = new(T); return P(*o.p) }
func (o one[T, P]) put(m Message)  { *o.p = (*T)(m.(P)) }
func (o one[T, P]) clear()         { *o.p = nil }
func (o one[T, P]) len() int {
	if *o.p == nil {
		return 0
	}
	return 1
}

type many[T any, P msgPtr[T]] struct{ p *[]*T }

func (o many[T, P]) repeated() bool   { return true }
func (o many[T, P]) len() int         { return len(*o.p) }
func (o many[T, P]) at(i int) Message { return P((*o.p)[i]) }
func (o many[T, P]) add() Message     { v := new(T); *o.p = append(*o.p, v); return P(v) }
func (o many[T, P]) put(m Message)    { *o.p = append(*o.p, (*T)(m.(P))) }
func (o many[T, P]) clear()           { *o.p = nil }

func msg[T any, P msgPtr[T]](p **T) messageField    { return one[T, P]{p} }
func msgs[T any, P msgPtr[T]](p *[]*T) messageField { return many[T, P]{p} }

func (m *Model) fields(f []field) []field {
	return append(f,
		field{num: 1, name: "ir_version", p: &m.IRVersion},
		field{num: 2, name: "producer_name", p: &m.ProducerName},
		field{num: 3, name: "producer_version", p: &m.ProducerVersion},
		field{num: 4, name: "domain", p: &m.Domain},
		field{num: 5, name: "model_version", p: &m.ModelVersion},
		field{num: 6, name: "doc_string", p: &m.DocString},
		field{num: 7, name: "graph", p: msg(&m.Graph)},
		field{num: 8, name: "opset_import", p: msgs(&m.OpsetImports)},
		field{num: 14, name: "metadata_props", p: msgs(&m.MetadataProps)},
		field{num: 20, name: "training_info", p: msgs(&m.TrainingInfo)},
		field{num: 25, name: "functions", p: msgs(&m.Functions)},
		field{num: 26, name: "configuration", p: msgs(&m.Configurations)})
}

func (o *OpsetImport) fields(f []field) []field {
	return append(f,
		field{num: 1, name: "domain", p: &o.Domain},
		field{num: 2, name: "version", p: &o.Version})
}

func (e *Property) fields(f []field) []field {
	return append(f,
		field{num: 1, name: "key", p: &e.Key},
		field{num: 2, name: "value", p: &e.Value})
}

func (g *Graph) fields(f []field) []field {
	return append(f,
		field{num: 1, name: "node", p: msgs(&g.Nodes)},
		field{num: 2, name: "name", p: &g.Name},
		field{num: 5, name: "initializer", p: msgs(&g.Initializers)},
		field{num: 10, name: "doc_string", p: &g.DocString},
		field{num: 11, name: "input", p: msgs(&g.Inputs)},
		field{num: 12, name: "output", p: msgs(&g.Outputs)},
		field{num: 13, name: "value_info", p: msgs(&g.ValueInfo)},
		field{num: 14, name: "quantization_annotation", p: msgs(&g.QuantizationAnnotations)},
		field{num: 15, name: "sparse_initializer", p: msgs(&g.SparseInitializers)},
		field{num: 16, name: "metadata_props", p: msgs(&g.MetadataProps)})
}

func (n *Node) fields(f []field) []field {
	return append(f,
		field{num: 1, name: "input", p: &n.Inputs},
		field{num: 2, name: "output", p: &n.Outputs},
		field{num: 3, name: "name", p: &n.Name},
		field{num: 4, name: "op_type", p: &n.OpType},
		field{num: 5, name: "attribute", p: msgs(&n.Attributes)},
		field{num: 6, name: "doc_string", p: &n.DocString},
		field{num: 7, name: "domain", p: &n.Domain},
		field{num: 8, name: "overload", p: &n.Overload},
		field{num: 9, name: "metadata_props", p: msgs(&n.MetadataProps)},
		field{num: 10, name: "device_configurations", p: msgs(&n.DeviceConfigurations)})
}

func (a *Attribute) fields(f []field) []field {
	// A typed attribute must carry its value even when that is zero, unless it
	// refers to an attribute of the enclosing function.
	own := a.RefAttrName == ""
	return append(f,
		field{num: 1, name: "name", p: &a.Name},
		field{num: 2, name: "f", p: &a.F, force: own && a.Type == AttrFloat},
		field{num: 3, name: "i", p: &a.I, force: own && a.Type == AttrInt},
		field{num: 4, name: "s", p: &a.S, force: own && a.Type == AttrString},
		field{num: 5, name: "t", p: msg(&a.T)},
		field{num: 6, name: "g", p: msg(&a.G)},
		field{num: 7, name: "floats", p: &a.Floats},
		field{num: 8, name: "ints", p: &a.Ints},
		field{num: 9, name: "strings", p: &a.Strings},
		field{num: 10, name: "tensors", p: msgs(&a.Tensors)},
		field{num: 11, name: "graphs", p: msgs(&a.Graphs)},
		field{num: 13, name: "doc_string", p: &a.DocString},
		field{num: 14, name: "tp", p: msg(&a.TypeProto)},
		field{num: 15, name: "type_protos", p: msgs(&a.TypeProtos)},
		field{num: 20, name: "type", p: (*int32)(&a.Type)},
		field{num: 21, name: "ref_attr_name", p: &a.RefAttrName},
		field{num: 22, name: "sparse_tensor", p: msg(&a.SparseTensor)},
		field{num: 23, name: "sparse_tensors", p: msgs(&a.SparseTensors)})
}

func (t *Tensor) fields(f []field) []field {
	return append(f,
		field{num: 1, name: "dims", p: &t.Dims},
		field{num: 2, name: "data_type", p: (*int32)(&t.DataType)},
		field{num: 3, name: "segment", p: msg(&t.Segment)},
		field{num: 4, name: "float_data", p: &t.FloatData},
		field{num: 5, name: "int32_data", p: &t.Int32Data},
		field{num: 6, name: "string_data", p: &t.StringData},
		field{num: 7, name: "int64_data", p: &t.Int64Data},
		field{num: 8, name: "name", p: &t.Name},
		field{num: 9, name: "raw_data", p: &t.RawData},
		field{num: 10, name: "double_data", p: &t.DoubleData},
		field{num: 11, name: "uint64_data", p: &t.Uint64Data},
		field{num: 12, name: "doc_string", p: &t.DocString},
		field{num: 13, name: "external_data", p: msgs(&t.ExternalData)},
		field{num: 14, name: "data_location", p: (*int32)(&t.DataLocation)},
		field{num: 16, name: "metadata_props", p: msgs(&t.MetadataProps)})
}

func (s *Segment) fields(f []field) []field {
	return append(f,
		field{num: 1, name: "begin", p: &s.Begin},
		field{num: 2, name: "end", p: &s.End})
}

func (s *SparseTensor) fields(f []field) []field {
	return append(f,
		field{num: 1, name: "values", p: msg(&s.Values)},
		field{num: 2, name: "indices", p: msg(&s.Indices)},
		field{num: 3, name: "dims", p: &s.Dims})
}

func (v *ValueInfo) fields(f []field) []field {
	return append(f,
		field{num: 1, name: "name", p: &v.Name},
		field{num: 2, name: "type", p: msg(&v.Type)},
		field{num: 3, name: "doc_string", p: &v.DocString},
		field{num: 4, name: "metadata_props", p: msgs(&v.MetadataProps)})
}

func (t *Type) fields(f []field) []field {
	return append(f,
		field{num: 1, name: "tensor_type", p: msg(&t.Tensor), oneof: 1},
		field{num: 4, name: "sequence_type", p: msg(&t.Sequence), oneof: 1},
		field{num: 5, name: "map_type", p: msg(&t.Map), oneof: 1},
		field{num: 6, name: "denotation", p: &t.Denotation},
		field{num: 7, name: "opaque_type", p: msg(&t.Opaque), oneof: 1},
		field{num: 8, name: "sparse_tensor_type", p: msg(&t.Sparse), oneof: 1},
		field{num: 9, name: "optional_type", p: msg(&t.Optional), oneof: 1})
}

func (t *TensorType) fields(f []field) []field {
	return append(f,
		field{num: 1, name: "elem_type", p: (*int32)(&t.ElemType)},
		field{num: 2, name: "shape", p: msg(&t.Shape)})
}

func (s *Shape) fields(f []field) []field {
	return append(f, field{num: 1, name: "dim", p: msgs(&s.Dims)})
}

func (d *Dim) fields(f []field) []field {
	return append(f,
		field{num: 1, name: "dim_value", p: &d.Value, oneof: 1, has: &d.HasValue},
		field{num: 2, name: "dim_param", p: &d.Param, oneof: 1},
		field{num: 3, name: "denotation", p: &d.Denotation})
}

func (t *SequenceType) fields(f []field) []field {
	return append(f, field{num: 1, name: "elem_type", p: msg(&t.ElemType)})
}

func (t *MapType) fields(f []field) []field {
	return append(f,
		field{num: 1, name: "key_type", p: (*int32)(&t.KeyType)},
		field{num: 2, name: "value_type", p: msg(&t.ValueType)})
}

func (t *OptionalType) fields(f []field) []field {
	return append(f, field{num: 1, name: "elem_type", p: msg(&t.ElemType)})
}

func (t *OpaqueType) fields(f []field) []field {
	return append(f,
		field{num: 1, name: "domain", p: &t.Domain},
		field{num: 2, name: "name", p: &t.Name})
}

func (f *Function) fields(list []field) []field {
	return append(list,
		field{num: 1, name: "name", p: &f.Name},
		field{num: 4, name: "input", p: &f.Inputs},
		field{num: 5, name: "output", p: &f.Outputs},
		field{num: 6, name: "attribute", p: &f.Attributes},
		field{num: 7, name: "node", p: msgs(&f.Nodes)},
		field{num: 8, name: "doc_string", p: &f.DocString},
		field{num: 9, name: "opset_import", p: msgs(&f.OpsetImports)},
		field{num: 10, name: "domain", p: &f.Domain},
		field{num: 11, name: "attribute_proto", p: msgs(&f.AttributeProtos)},
		field{num: 12, name: "value_info", p: msgs(&f.ValueInfo)},
		field{num: 13, name: "overload", p: &f.Overload},
		field{num: 14, name: "metadata_props", p: msgs(&f.MetadataProps)})
}

func (t *TensorAnnotation) fields(f []field) []field {
	return append(f,
		field{num: 1, name: "tensor_name", p: &t.TensorName},
		field{num: 2, name: "quant_parameter_tensor_names", p: msgs(&t.QuantParameterTensorNames)})
}

func (t *TrainingInfo) fields(f []field) []field {
	return append(f,
		field{num: 1, name: "initialization", p: msg(&t.Initialization)},
		field{num: 2, name: "algorithm", p: msg(&t.Algorithm)},
		field{num: 3, name: "initialization_binding", p: msgs(&t.InitializationBinding)},
		field{num: 4, name: "update_binding", p: msgs(&t.UpdateBinding)})
}

func (c *DeviceConfiguration) fields(f []field) []field {
	return append(f,
		field{num: 1, name: "name", p: &c.Name},
		field{num: 2, name: "num_devices", p: &c.NumDevices},
		field{num: 3, name: "device", p: &c.Devices})
}

func (c *NodeDeviceConfiguration) fields(f []field) []field {
	return append(f,
		field{num: 1, name: "configuration_id", p: &c.ConfigurationID},
		field{num: 2, name: "sharding_spec", p: msgs(&c.ShardingSpecs)},
		field{num: 3, name: "pipeline_stage", p: &c.PipelineStage})
}

func (s *ShardingSpec) fields(f []field) []field {
	return append(f,
		field{num: 1, name: "tensor_name", p: &s.TensorName},
		field{num: 2, name: "device", p: &s.Devices},
		field{num: 3, name: "index_to_device_group_map", p: msgs(&s.IndexToDeviceGroupMap)},
		field{num: 4, name: "sharded_dim", p: msgs(&s.ShardedDims)})
}

func (e *IntIntList) fields(f []field) []field {
	return append(f,
		field{num: 1, name: "key", p: &e.Key},
		field{num: 2, name: "value", p: &e.Values})
}

func (d *ShardedDim) fields(f []field) []field {
	return append(f,
		field{num: 1, name: "axis", p: &d.Axis},
		field{num: 2, name: "simple_sharding", p: msgs(&d.SimpleSharding)})
}

func (d *SimpleShardedDim) fields(f []field) []field {
	return append(f,
		field{num: 1, name: "dim_value", p: &d.Value, oneof: 1, has: &d.HasValue},
		field{num: 2, name: "dim_param", p: &d.Param, oneof: 1},
		field{num: 3, name: "num_shards", p: &d.NumShards})
}
