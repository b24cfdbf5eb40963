package onnx

import (
	"encoding/binary"
	"fmt"
	"math"
)

// NewModel returns a model with an empty graph of the given name. The IR version
// and the version of the standard operator set are chosen by the caller because
// they decide which runtimes can load the model.
func NewModel(irVersion, opset int64, graph string) *Model {
	return &Model{
		IRVersion:    irVersion,
		Graph:        &Graph{Name: graph},
		OpsetImports: []*OpsetImport{{Version: opset}},
	}
}

// Opset returns the version of the operator set of domain that the model
// imports, and whether it imports one. "" and "ai.onnx" are the same domain.
func (m *Model) Opset(domain string) (int64, bool) { return opset(m.OpsetImports, domain) }

// SetOpset sets the version of the operator set of domain, importing it if needed.
func (m *Model) SetOpset(domain string, version int64) {
	m.OpsetImports = setOpset(m.OpsetImports, domain, version)
}

// Opset is [Model.Opset] for the operator sets of a function.
func (f *Function) Opset(domain string) (int64, bool) { return opset(f.OpsetImports, domain) }

// SetOpset is [Model.SetOpset] for the operator sets of a function.
func (f *Function) SetOpset(domain string, version int64) {
	f.OpsetImports = setOpset(f.OpsetImports, domain, version)
}

func opset(list []*OpsetImport, domain string) (int64, bool) {
	for _, o := range list {
		if o != nil && normalDomain(o.Domain) == normalDomain(domain) {
			return o.Version, true
		}
	}
	return 0, false
}

func setOpset(list []*OpsetImport, domain string, version int64) []*OpsetImport {
	for _, o := range list {
		if o != nil && normalDomain(o.Domain) == normalDomain(domain) {
			o.Version = version
			return list
		}
	}
	return append(list, &OpsetImport{Domain: domain, Version: version})
}

// Metadata returns the metadata property of that key, and whether it exists.
func (m *Model) Metadata(key string) (string, bool) {
	for _, p := range m.MetadataProps {
		if p != nil && p.Key == key {
			return p.Value, true
		}
	}
	return "", false
}

// SetMetadata sets a metadata property of the model.
func (m *Model) SetMetadata(key, value string) {
	for _, p := range m.MetadataProps {
		if p != nil && p.Key == key {
			p.Value = value
			return
		}
	}
	m.MetadataProps = append(m.MetadataProps, &Property{Key: key, Value: value})
}

// Initializer returns the initializer of that name in g, or nil.
func (g *Graph) Initializer(name string) *Tensor {
	for _, t := range g.Initializers {
		if t != nil && t.Name == name {
			return t
		}
	}
	return nil
}

// NewNode returns a node of the standard domain. Set Name and Domain afterwards.
func NewNode(op string, inputs, outputs []string, attrs ...*Attribute) *Node {
	return &Node{OpType: op, Inputs: inputs, Outputs: outputs, Attributes: attrs}
}

// Attr returns the attribute of that name, or nil.
func (n *Node) Attr(name string) *Attribute {
	for _, a := range n.Attributes {
		if a != nil && a.Name == name {
			return a
		}
	}
	return nil
}

// SetAttr adds a to the node, in place of an attribute of the same name.
func (n *Node) SetAttr(a *Attribute) {
	for i, old := range n.Attributes {
		if old != nil && old.Name == a.Name {
			n.Attributes[i] = a
			return
		}
	}
	n.Attributes = append(n.Attributes, a)
}

// Int returns an int attribute, or otherwise when the node has none of that name and type.
func (n *Node) Int(name string, otherwise int64) int64 {
	if a := n.Attr(name); a.is(AttrInt) {
		return a.I
	}
	return otherwise
}

// Float returns a float attribute, or otherwise when the node has none of that name and type.
func (n *Node) Float(name string, otherwise float32) float32 {
	if a := n.Attr(name); a.is(AttrFloat) {
		return a.F
	}
	return otherwise
}

// Str returns a string attribute, or otherwise when the node has none of that name and type.
func (n *Node) Str(name, otherwise string) string {
	if a := n.Attr(name); a.is(AttrString) {
		return string(a.S)
	}
	return otherwise
}

// Ints returns an ints attribute, or nil when the node has none of that name and type.
func (n *Node) Ints(name string) []int64 {
	if a := n.Attr(name); a.is(AttrInts) {
		return a.Ints
	}
	return nil
}

// is also takes attributes without a type, which files of IR version 1 have.
func (a *Attribute) is(t AttributeType) bool {
	return a != nil && a.RefAttrName == "" && (a.Type == t || a.Type == AttrUndefined)
}

// IntAttr returns an attribute that holds one integer.
func IntAttr(name string, v int64) *Attribute { return &Attribute{Name: name, Type: AttrInt, I: v} }

// IntsAttr returns an attribute that holds a list of integers.
func IntsAttr(name string, v ...int64) *Attribute {
	return &Attribute{Name: name, Type: AttrInts, Ints: v}
}

// FloatAttr returns an attribute that holds one float.
func FloatAttr(name string, v float32) *Attribute {
	return &Attribute{Name: name, Type: AttrFloat, F: v}
}

// FloatsAttr returns an attribute that holds a list of floats.
func FloatsAttr(name string, v ...float32) *Attribute {
	return &Attribute{Name: name, Type: AttrFloats, Floats: v}
}

// StringAttr returns an attribute that holds one string.
func StringAttr(name, v string) *Attribute {
	return &Attribute{Name: name, Type: AttrString, S: []byte(v)}
}

// TensorAttr returns an attribute that holds a tensor.
func TensorAttr(name string, t *Tensor) *Attribute {
	return &Attribute{Name: name, Type: AttrTensor, T: t}
}

// GraphAttr returns an attribute that holds a subgraph.
func GraphAttr(name string, g *Graph) *Attribute {
	return &Attribute{Name: name, Type: AttrGraph, G: g}
}

// RefAttr returns an attribute, for a node in the body of a function, whose
// value is that of the attribute ref of the function.
func RefAttr(name, ref string, t AttributeType) *Attribute {
	return &Attribute{Name: name, Type: t, RefAttrName: ref}
}

// Element is a Go type that tensors can be made from.
type Element interface {
	float32 | float64 | int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64 | bool
}

// NewTensor returns a tensor with a copy of the values v. With no dims it is a
// scalar. The data type follows the Go type; for the ones Go does not have, see
// [NewRawTensor]. It panics when the number of values does not fit dims, which
// is a mistake in the calling program.
func NewTensor[T Element](name string, dims []int64, v []T) *Tensor {
	n, err := numElements(dims)
	if err != nil || n != int64(len(v)) {
		panic(fmt.Sprintf("onnx.NewTensor(%q): %d values for dims %v", name, len(v), dims))
	}
	dt := typeOf[T]()
	b := make([]byte, 0, len(v)*dt.Bits()/8)
	if b, err = binary.Append(b, binary.LittleEndian, v); err != nil {
		panic(err) // not for the types of Element
	}
	return NewRawTensor(name, dt, dims, b)
}

func typeOf[T Element]() DataType {
	var x T
	switch any(x).(type) {
	case float64:
		return Double
	case int8:
		return Int8
	case int16:
		return Int16
	case int32:
		return Int32
	case int64:
		return Int64
	case uint8:
		return Uint8
	case uint16:
		return Uint16
	case uint32:
		return Uint32
	case uint64:
		return Uint64
	case bool:
		return Bool
	}
	return Float
}

// NewFloat16Tensor returns a float16 tensor of the rounded values v. It panics
// as [NewTensor] does.
func NewFloat16Tensor(name string, dims []int64, v []float32) *Tensor {
	h := make([]uint16, len(v))
	for i, x := range v {
		h[i] = Float16FromFloat32(x)
	}
	t := NewTensor(name, dims, h)
	t.DataType = Float16
	return t
}

// NewRawTensor returns a tensor of the given raw data, which are not copied. See
// [Tensor] for their form. Their size is checked when the tensor is used.
func NewRawTensor(name string, dt DataType, dims []int64, raw []byte) *Tensor {
	if raw == nil {
		raw = []byte{}
	}
	return &Tensor{Name: name, DataType: dt, Dims: append([]int64(nil), dims...), RawData: raw}
}

// NewStreamTensor returns a tensor whose data are produced when they are needed.
func NewStreamTensor(name string, dt DataType, dims []int64, data Data) *Tensor {
	return &Tensor{Name: name, DataType: dt, Dims: append([]int64(nil), dims...), Data: data}
}

// NewStringTensor returns a tensor of strings. It panics as [NewTensor] does.
func NewStringTensor(name string, dims []int64, v []string) *Tensor {
	if n, err := numElements(dims); err != nil || n != int64(len(v)) {
		panic(fmt.Sprintf("onnx.NewStringTensor(%q): %d values for dims %v", name, len(v), dims))
	}
	t := &Tensor{Name: name, DataType: String, Dims: append([]int64(nil), dims...)}
	for _, s := range v {
		t.StringData = append(t.StringData, []byte(s))
	}
	return t
}

// Scalar returns a scalar tensor.
func Scalar[T Element](name string, v T) *Tensor { return NewTensor(name, nil, []T{v}) }

// NewValueInfo declares a tensor value. Each dim is an int or int64, a string (a
// symbol such as "batch"), or nil for an unknown size. Without dims it is a
// scalar; [UnknownRank] as the only dim leaves the shape out. It panics on
// anything else.
func NewValueInfo(name string, dt DataType, dims ...any) *ValueInfo {
	tt := &TensorType{ElemType: dt}
	if len(dims) != 1 || dims[0] != UnknownRank {
		tt.Shape = &Shape{}
		for _, d := range dims {
			tt.Shape.Dims = append(tt.Shape.Dims, newDim(d))
		}
	}
	return &ValueInfo{Name: name, Type: &Type{Tensor: tt}}
}

type unknownRank struct{}

// UnknownRank, as the only dim given to [NewValueInfo], stands for a shape of
// which not even the number of dimensions is known.
var UnknownRank any = unknownRank{}

func newDim(d any) *Dim {
	switch d := d.(type) {
	case nil:
		return &Dim{}
	case int:
		return &Dim{Value: int64(d), HasValue: true}
	case int64:
		return &Dim{Value: d, HasValue: true}
	case string:
		return &Dim{Param: d}
	}
	panic(fmt.Sprintf("onnx.NewValueInfo: a dim of type %T; want int, int64, string or nil", d))
}

// RawFloat32 returns the raw form of v, as [NewRawTensor] takes it.
func RawFloat32(v []float32) []byte {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}
