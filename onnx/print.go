package onnx

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Fprint writes m as text for people and golden tests: one line for each
// import, input, initializer, node and output, subgraphs indented. Weights are
// named, not printed, except for lists of at most 8 numbers in attributes.
func Fprint(w io.Writer, m *Model) error {
	p := &printer{w: w}
	p.line("model ir=%d producer=%q %s", m.IRVersion, m.ProducerName, m.ProducerVersion)
	p.imports(m.OpsetImports)
	for _, e := range m.MetadataProps {
		p.line("meta %q = %q", e.Key, e.Value)
	}
	if m.Graph != nil {
		p.line("graph %q", m.Graph.Name)
		p.graph(m.Graph)
	}
	for _, f := range m.Functions {
		p.line("function %s(%s) -> (%s) attributes(%s)", f.ID(), strings.Join(f.Inputs, ", "), strings.Join(f.Outputs, ", "), strings.Join(f.Attributes, ", "))
		p.depth++
		p.imports(f.OpsetImports)
		for _, a := range f.AttributeProtos {
			p.line("default %s", attrText(a))
		}
		p.nodes(f.Nodes)
		p.depth--
	}
	return p.err
}

type printer struct {
	w     io.Writer
	depth int
	err   error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, "%s%s\n", strings.Repeat("  ", p.depth), strings.TrimRight(fmt.Sprintf(format, args...), " "))
	}
}

func (p *printer) imports(list []*OpsetImport) {
	for _, o := range list {
		p.line("import %q %d", o.Domain, o.Version)
	}
}

func (p *printer) graph(g *Graph) {
	p.depth++
	defer func() { p.depth-- }()
	for _, v := range g.Inputs {
		p.line("input  %s", v.text())
	}
	for _, t := range g.Initializers {
		p.line("init   %s", t.text())
	}
	for _, s := range g.SparseInitializers {
		name := ""
		if s.Values != nil {
			name = s.Values.Name
		}
		p.line("sparse %s %s", name, dimsText(s.Dims))
	}
	p.nodes(g.Nodes)
	for _, v := range g.Outputs {
		p.line("output %s", v.text())
	}
}

func (p *printer) nodes(nodes []*Node) {
	for _, n := range nodes {
		op := n.OpType
		if d := normalDomain(n.Domain); d != "" {
			op = d + "." + op
		}
		var attrs []string
		for _, a := range n.Attributes {
			attrs = append(attrs, attrText(a))
		}
		list := ""
		if len(attrs) > 0 {
			list = " {" + strings.Join(attrs, ", ") + "}"
		}
		name := ""
		if n.Name != "" {
			name = fmt.Sprintf(" # %s", n.Name)
		}
		p.line("%s = %s(%s)%s%s", strings.Join(n.Outputs, ", "), op, strings.Join(n.Inputs, ", "), list, name)
		for _, a := range n.Attributes {
			p.subgraph(a.Name, a.G)
			for i, g := range a.Graphs {
				p.subgraph(fmt.Sprintf("%s[%d]", a.Name, i), g)
			}
		}
	}
}

// subgraph writes what an attribute of a node holds, if anything.
func (p *printer) subgraph(name string, g *Graph) {
	if g != nil && p.depth < maxNesting {
		p.line("  %s:", name)
		p.depth++
		p.graph(g)
		p.depth--
	}
}

func (t *Tensor) text() string {
	place := ""
	switch {
	case t.Data != nil:
		place = " stream"
	case t.DataLocation == LocationExternal:
		place = " external"
	}
	return fmt.Sprintf("%s %v%v%s", t.Name, t.DataType, dimsText(t.Dims), place)
}

func dimsText(dims []int64) string {
	s := make([]string, len(dims))
	for i, d := range dims {
		s[i] = strconv.FormatInt(d, 10)
	}
	return "[" + strings.Join(s, ",") + "]"
}

func (v *ValueInfo) text() string { return v.Name + " " + v.Type.String() }

// String returns the type as ONNX writes it, such as tensor(float)[N,3] or
// seq(tensor(int64)).
func (t *Type) String() string { return t.text(0) }

func (t *Type) text(depth int) string {
	switch {
	case t == nil || depth > maxNesting:
		return "?"
	case t.Tensor != nil:
		return "tensor(" + t.Tensor.ElemType.String() + ")" + t.Tensor.Shape.String()
	case t.Sparse != nil:
		return "sparse_tensor(" + t.Sparse.ElemType.String() + ")" + t.Sparse.Shape.String()
	case t.Sequence != nil:
		return "seq(" + t.Sequence.ElemType.text(depth+1) + ")"
	case t.Map != nil:
		return "map(" + t.Map.KeyType.String() + "," + t.Map.ValueType.text(depth+1) + ")"
	case t.Optional != nil:
		return "optional(" + t.Optional.ElemType.text(depth+1) + ")"
	case t.Opaque != nil:
		return "opaque(" + t.Opaque.Domain + "," + t.Opaque.Name + ")"
	}
	return "?"
}

// String returns the dimensions, "?" for an unknown one, or "" for a nil shape.
func (s *Shape) String() string {
	if s == nil {
		return ""
	}
	list := make([]string, len(s.Dims))
	for i, d := range s.Dims {
		switch n, known := d.Known(); {
		case known:
			list[i] = strconv.FormatInt(n, 10)
		case d != nil && d.Param != "":
			list[i] = d.Param
		default:
			list[i] = "?"
		}
	}
	return "[" + strings.Join(list, ",") + "]"
}

func attrText(a *Attribute) string {
	if a.RefAttrName != "" {
		return a.Name + "=@" + a.RefAttrName
	}
	v := ""
	switch a.Type {
	case AttrFloat:
		v = fmt.Sprint(a.F)
	case AttrInt:
		v = fmt.Sprint(a.I)
	case AttrString:
		v = strconv.Quote(clip(string(a.S)))
	case AttrTensor:
		if a.T != nil {
			v = strings.TrimSpace(a.T.text())
		}
	case AttrGraph:
		v = "graph"
	case AttrFloats:
		v = listText(a.Floats)
	case AttrInts:
		v = listText(a.Ints)
	case AttrStrings:
		var s []string
		for _, b := range a.Strings {
			s = append(s, strconv.Quote(clip(string(b))))
		}
		v = listText(s)
	default:
		v = strings.ToLower(a.Type.String())
	}
	return a.Name + "=" + v
}

func listText[T any](v []T) string {
	if len(v) > 8 {
		return fmt.Sprintf("%v...(%d)", v[:8], len(v))
	}
	return fmt.Sprint(v)
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}
