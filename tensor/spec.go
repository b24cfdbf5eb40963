package tensor

import (
	"strconv"
	"strings"
)

// Spec describes one input or output of a model.
type Spec struct {
	Name  string
	Type  Type
	Shape []Dim
	// Ranked is false when the model says nothing of the shape, not even how many dimensions there are.
	Ranked bool
}

// Dim is one dimension of a [Spec]: a fixed size, or one that is known only at run time.
type Dim struct {
	Size  int64  // -1 when it is not fixed
	Name  string // symbolic name of a size that is not fixed, such as "batch"; may be empty
	Least int64  // the smallest that a size which is not fixed may be
}

// Fixed tells whether the model declares the size.
func (d Dim) Fixed() bool { return d.Size >= 0 }

// Accepts tells whether a value of that type and shape can be fed to the input.
func (s Spec) Accepts(t Type, shape []int64) bool {
	if t != s.Type {
		return false
	}
	if !s.Ranked {
		return true
	}
	if len(shape) != len(s.Shape) {
		return false
	}
	for i, d := range s.Shape {
		if d.Fixed() && d.Size != shape[i] {
			return false
		}
	}
	return true
}

// String writes the spec as input_ids int64[batch,256].
func (s Spec) String() string {
	if !s.Ranked {
		return s.Name + " " + s.Type.String()
	}
	parts := make([]string, len(s.Shape))
	for i, d := range s.Shape {
		switch {
		case d.Fixed():
			parts[i] = strconv.FormatInt(d.Size, 10)
		case d.Name != "":
			parts[i] = d.Name
		default:
			parts[i] = "?"
		}
	}
	return s.Name + " " + s.Type.String() + "[" + strings.Join(parts, ",") + "]"
}
