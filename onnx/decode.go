package onnx

import (
	"fmt"
	"io"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// maxNesting bounds the depth of messages in messages. One level of subgraph is
// three of them (graph, node, attribute), so this is about 100 subgraphs.
const maxNesting = 310

// decoder parses messages into Go structs that view the input.
type decoder struct {
	doc     *document
	shallow bool    // give submessages their bytes only
	table   []field // scratch: the schemas of the messages being parsed
}

// piece is one occurrence of a submessage that is not repeated.
type piece struct {
	field int
	b     []byte
	off   int64
}

// decode parses b, which starts off bytes into the file, into the fresh message m.
func (d *decoder) decode(m Message, b []byte, off int64, depth int) error {
	if depth > maxNesting {
		return d.fail(off, fmt.Errorf("%w: more than %d messages inside each other", ErrTooDeep, maxNesting))
	}
	s := m.src()
	s.raw, s.doc = b[:len(b):len(b)], d.doc

	base := len(d.table)
	d.table = m.fields(d.table)
	tab := d.table[base:]
	defer func() { d.table = d.table[:base] }()

	// Protobuf merges repeated occurrences of a single submessage as if their
	// bytes were concatenated, so these are parsed when all have been seen.
	var single []piece
	member := -1 // of a oneof, that came last
	last := 0
	for at := 0; at < len(b); {
		num, typ, n := protowire.ConsumeTag(b[at:])
		if n < 0 {
			return d.fail(off+int64(at), wireError(n))
		}
		size := protowire.ConsumeFieldValue(num, typ, b[at+n:])
		if size < 0 {
			return d.fail(off+int64(at), fmt.Errorf("field %d: %w", num, wireError(size)))
		}
		val, pos := b[at+n:at+n+size], off+int64(at+n)
		at += n + size

		i := find(tab, num, last)
		if i < 0 {
			continue // unknown: it stays in raw
		}
		last = i
		f := &tab[i]
		if mf, ok := f.p.(messageField); ok {
			if typ != protowire.BytesType {
				continue
			}
			val, pos = bytesOf(val, pos)
			if f.oneof != 0 && member != i {
				single, member = dropOthers(tab, i, single), i
			}
			if !mf.repeated() {
				single = append(single, piece{i, val, pos})
				continue
			}
			if err := d.child(mf.add(), val, pos, depth); err != nil {
				return inside(err, f.name, mf.len()-1)
			}
			continue
		}
		ok, err := setScalar(f.p, typ, val)
		if err != nil {
			return inside(d.fail(pos, err), f.name, -1)
		}
		if ok && f.has != nil {
			*f.has = true
		}
		if ok && f.oneof != 0 && member != i {
			single, member = dropOthers(tab, i, single), i
		}
	}
	return d.merge(tab, single, depth)
}

// merge parses the submessages that are not repeated.
func (d *decoder) merge(tab []field, single []piece, depth int) error {
	for len(single) > 0 {
		first := single[0]
		b, rest := first.b, single[:0]
		merged := false
		for _, p := range single[1:] {
			if p.field != first.field {
				rest = append(rest, p)
				continue
			}
			if !merged {
				b, merged = append([]byte{}, b...), true
			}
			b = append(b, p.b...)
		}
		f := &tab[first.field]
		if err := d.child(f.p.(messageField).add(), b, first.off, depth); err != nil {
			return inside(err, f.name, -1)
		}
		single = rest
	}
	return nil
}

func (d *decoder) child(m Message, b []byte, off int64, depth int) error {
	if d.shallow {
		m.src().raw = b[:len(b):len(b)]
		return nil
	}
	return d.decode(m, b, off, depth+1)
}

func (d *decoder) fail(off int64, err error) error {
	fe := &FormatError{Offset: off, Err: err}
	if d.doc != nil {
		fe.Path = d.doc.path
	}
	return fe
}

// find looks for a field number, first where the previous field was.
func find(tab []field, num protowire.Number, last int) int {
	if last < len(tab) && tab[last].num == num {
		return last
	}
	for i := range tab {
		if tab[i].num == num {
			return i
		}
	}
	return -1
}

// dropOthers clears the members of a oneof that an occurrence of member i replaces.
func dropOthers(tab []field, i int, single []piece) []piece {
	for j := range tab {
		if j != i && tab[j].oneof == tab[i].oneof {
			clearField(&tab[j])
		}
	}
	keep := single[:0]
	for _, p := range single {
		if p.field == i || tab[p.field].oneof != tab[i].oneof {
			keep = append(keep, p)
		}
	}
	return keep
}

func clearField(f *field) {
	switch p := f.p.(type) {
	case messageField:
		p.clear()
	case *string:
		*p = ""
	case *int64:
		*p = 0
	}
	if f.has != nil {
		*f.has = false
	}
}

// bytesOf strips the length from a length-delimited value already validated.
func bytesOf(val []byte, pos int64) ([]byte, int64) {
	b, n := protowire.ConsumeBytes(val)
	return b, pos + int64(n-len(b))
}

// setScalar stores one occurrence of a field. It reports false, like protobuf,
// when the wire type is not the one of the field: the field is then unknown.
func setScalar(p any, typ protowire.Type, val []byte) (bool, error) {
	switch p := p.(type) {
	case *string:
		if typ != protowire.BytesType {
			return false, nil
		}
		b, _ := bytesOf(val, 0)
		*p = string(b)
	case *[]string:
		if typ != protowire.BytesType {
			return false, nil
		}
		b, _ := bytesOf(val, 0)
		*p = append(*p, string(b))
	case *[]byte:
		if typ != protowire.BytesType {
			return false, nil
		}
		b, _ := bytesOf(val, 0)
		*p = b[:len(b):len(b)]
	case *[][]byte:
		if typ != protowire.BytesType {
			return false, nil
		}
		b, _ := bytesOf(val, 0)
		*p = append(*p, b[:len(b):len(b)])
	case *int64:
		if typ != protowire.VarintType {
			return false, nil
		}
		v, _ := protowire.ConsumeVarint(val)
		*p = int64(v)
	case *int32:
		if typ != protowire.VarintType {
			return false, nil
		}
		v, _ := protowire.ConsumeVarint(val)
		*p = int32(v)
	case *float32:
		if typ != protowire.Fixed32Type {
			return false, nil
		}
		v, _ := protowire.ConsumeFixed32(val)
		*p = math.Float32frombits(v)
	case *[]int64:
		return appendInts(p, typ, val)
	case *[]float32:
		return appendFloats(p, typ, val)
	case packedField:
		switch typ {
		case protowire.BytesType:
			b, _ := bytesOf(val, 0)
			if len(p.payload()) == 0 {
				p.set(b[:len(b):len(b)])
			} else {
				p.set(append(p.payload(), b...))
			}
		case p.wireType():
			p.set(append(p.payload(), val...))
		default:
			return false, nil
		}
	default:
		panic(fmt.Sprintf("onnx: schema names a field of type %T", p))
	}
	return true, nil
}

func appendInts(p *[]int64, typ protowire.Type, val []byte) (bool, error) {
	switch typ {
	case protowire.VarintType:
		v, _ := protowire.ConsumeVarint(val)
		*p = append(*p, int64(v))
		return true, nil
	case protowire.BytesType:
	default:
		return false, nil
	}
	b, _ := bytesOf(val, 0)
	for len(b) > 0 {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return false, wireError(n)
		}
		*p = append(*p, int64(v))
		b = b[n:]
	}
	return true, nil
}

func appendFloats(p *[]float32, typ protowire.Type, val []byte) (bool, error) {
	switch typ {
	case protowire.Fixed32Type:
	case protowire.BytesType:
		val, _ = bytesOf(val, 0)
	default:
		return false, nil
	}
	if len(val)%4 != 0 {
		return false, ErrTruncated
	}
	for ; len(val) > 0; val = val[4:] {
		v, _ := protowire.ConsumeFixed32(val)
		*p = append(*p, math.Float32frombits(v))
	}
	return true, nil
}

func wireError(n int) error {
	if err := protowire.ParseError(n); err == io.ErrUnexpectedEOF {
		return ErrTruncated
	}
	return ErrWire
}
