package onnx

// ValueInfo is the name and type of a value (ValueInfoProto).
type ValueInfo struct {
	Name          string
	Type          *Type
	DocString     string
	MetadataProps []*Property

	source
}

// Type is the type of a value (TypeProto). At most one of the pointers is set.
type Type struct {
	Tensor     *TensorType
	Sequence   *SequenceType
	Map        *MapType
	Denotation string
	Opaque     *OpaqueType
	Sparse     *TensorType
	Optional   *OptionalType

	source
}

// TensorType is an element type and a shape. A nil Shape is an unknown rank,
// an empty one a scalar.
type TensorType struct {
	ElemType DataType
	Shape    *Shape

	source
}

// Shape is a list of dimensions.
type Shape struct {
	Dims []*Dim

	source
}

// Dim is one dimension: the symbol Param when that is not empty, else the number
// Value when HasValue is set or Value is not zero, else unknown. HasValue is
// needed only to tell the size zero from an unknown size; parsing sets it.
type Dim struct {
	Value      int64
	HasValue   bool
	Param      string
	Denotation string

	source
}

// SequenceType is a list of values of one type.
type SequenceType struct {
	ElemType *Type

	source
}

// MapType maps keys (integers or strings) to values.
type MapType struct {
	KeyType   DataType
	ValueType *Type

	source
}

// OptionalType is a value that may be absent.
type OptionalType struct {
	ElemType *Type

	source
}

// OpaqueType is a type that only Domain knows.
type OpaqueType struct {
	Domain string
	Name   string

	source
}

// Known reports whether d is a number, and which.
func (d *Dim) Known() (int64, bool) {
	if d == nil || d.Param != "" || (!d.HasValue && d.Value == 0) {
		return 0, false
	}
	return d.Value, true
}

// TensorType returns the element type and the dimensions of a tensor value.
// A dimension that is not a known number is -1; dims is nil when the rank is
// unknown. ok is false when v is not declared as a (dense) tensor.
func (v *ValueInfo) TensorType() (dt DataType, dims []int64, ok bool) {
	if v == nil || v.Type == nil || v.Type.Tensor == nil {
		return Undefined, nil, false
	}
	tt := v.Type.Tensor
	if tt.Shape == nil {
		return tt.ElemType, nil, true
	}
	dims = make([]int64, len(tt.Shape.Dims))
	for i, d := range tt.Shape.Dims {
		n, known := d.Known()
		if !known {
			n = -1
		}
		dims[i] = n
	}
	return tt.ElemType, dims, true
}
