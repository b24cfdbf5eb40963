package onnx

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// encoder turns messages into wire format back to front: the end of a message is
// encoded before its start, so that its length is known when its header is
// written. The result is a list of parts; large byte fields and untouched
// messages are parts of their own that point at where they are.
type encoder struct {
	parts   []part // last first
	block   []byte // being filled from its end
	pos     int    // start of the used part of block
	end     int    // end of the part of block not yet in parts
	size    int64
	replace map[*Tensor]*Tensor // tensors to write instead of others
	scratch decoder
	tables  []field // of the messages being encoded, the innermost last
	err     error   // of the first message that cannot be encoded
}

type part struct {
	b    []byte
	data Data // instead of b
}

const (
	blockSize = 32 << 10
	bigField  = 1 << 10 // byte fields from this size on are not copied
)

// prepend puts a copy of b in front of what was encoded so far.
func (e *encoder) prepend(b []byte) {
	e.size += int64(len(b))
	for len(b) > 0 {
		if e.pos == 0 {
			e.flush()
			e.block = make([]byte, blockSize)
			e.pos, e.end = blockSize, blockSize
		}
		n := min(len(b), e.pos)
		e.pos -= n
		copy(e.block[e.pos:], b[len(b)-n:])
		b = b[:len(b)-n]
	}
}

// prependView puts b itself in front; it must not change until it is written.
func (e *encoder) prependView(b []byte) {
	if len(b) < bigField {
		e.prepend(b)
		return
	}
	e.flush()
	e.parts = append(e.parts, part{b: b})
	e.size += int64(len(b))
}

func (e *encoder) prependData(d Data) {
	e.flush()
	e.parts = append(e.parts, part{data: d})
	e.size += d.Size()
}

func (e *encoder) flush() {
	if e.pos < e.end {
		e.parts = append(e.parts, part{b: e.block[e.pos:e.end]})
		e.end = e.pos
	}
}

func (e *encoder) prependVarint(v uint64) {
	var a [binary.MaxVarintLen64]byte
	e.prepend(protowire.AppendVarint(a[:0], v))
}

func (e *encoder) prependTag(num protowire.Number, typ protowire.Type) {
	e.prependVarint(protowire.EncodeTag(num, typ))
}

// writeTo writes everything encoded.
func (e *encoder) writeTo(w io.Writer) (int64, error) {
	e.flush()
	var total int64
	for i := len(e.parts) - 1; i >= 0; i-- {
		n, err := writePart(w, e.parts[i])
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

func writePart(w io.Writer, p part) (int64, error) {
	if p.data == nil {
		return writeBytes(w, p.b)
	}
	c := &countingWriter{w: w}
	_, err := p.data.WriteTo(c)
	if err == nil && c.n != p.data.Size() {
		err = fmt.Errorf("onnx: the Data of a tensor announced %d bytes and wrote %d: %w", p.data.Size(), c.n, ErrTensorSize)
	}
	return c.n, err
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// writeBytes writes in pieces, so that a cancelled writer stops soon and one
// that releases what it has seen keeps little in memory.
func writeBytes(w io.Writer, b []byte) (int64, error) {
	r, _ := w.(interface{ done([]byte) })
	var total int64
	for len(b) > 0 {
		n, err := w.Write(b[:min(len(b), 4<<20)])
		total += int64(n)
		if err != nil {
			return total, err
		}
		if r != nil {
			r.done(b[:n])
		}
		b = b[n:]
	}
	return total, nil
}

// message encodes the body of m.
func (e *encoder) message(m Message) {
	if doc := m.src().doc; doc != nil && doc.isClosed() {
		e.err = ErrClosed // its bytes are gone
		return
	}
	if e.untouched(m) {
		e.prependView(m.src().raw)
		return
	}
	if t, ok := m.(*Tensor); ok {
		if r := e.replace[t]; r != nil {
			m = r
		}
	}
	var old oldFields
	if b := m.src().raw; len(b) > 0 {
		old = oldFieldsOf(m, b)
	}
	for i := len(old.unknown) - 1; i >= 0; i-- {
		e.prependView(old.unknown[i])
	}
	outer := len(e.tables)
	e.tables = m.fields(e.tables)
	defer func() { e.tables = e.tables[:outer] }()
	tab := e.tables[outer:]
	won := uint8(0) // a bit for each group of which a member is written
	for i := len(tab) - 1; i >= 0; i-- {
		f := &tab[i]
		if t, ok := m.(*Tensor); ok && t.Data != nil && storesData(f.num) {
			if f.num == rawDataField {
				e.prependData(t.Data)
				e.prependVarint(uint64(t.Data.Size()))
				e.prependTag(f.num, protowire.BytesType)
			}
			continue
		}
		present := f.force || (f.has != nil && *f.has) || old.has(f.num)
		if a, ok := m.(*Attribute); ok && a.Type != AttrUndefined && f.num >= 2 && f.num <= 4 {
			// Only the value that the type names: an attribute whose type was
			// changed must not keep a zero of the old one.
			present = f.force
		}
		if f.oneof != 0 {
			// The later member wins, and an old presence means nothing: the
			// other member may have been set since.
			if won&(1<<f.oneof) != 0 || isZero(f) && (f.has == nil || !*f.has) {
				continue
			}
			won |= 1 << f.oneof
		}
		e.field(f, present)
	}
}

// Field numbers of TensorProto that hold data or say where they are.
const rawDataField = 9

func storesData(n protowire.Number) bool {
	switch n {
	case 4, 5, 6, 7, rawDataField, 10, 11, 13, 14:
		return true
	}
	return false
}

func (e *encoder) field(f *field, present bool) {
	zero := isZero(f)
	if zero && !present {
		return
	}
	switch p := f.p.(type) {
	case *string:
		e.bytes(f.num, []byte(*p))
	case *[]string:
		for i := len(*p) - 1; i >= 0; i-- {
			e.bytes(f.num, []byte((*p)[i]))
		}
	case *[]byte:
		if *p == nil && !f.force {
			return // taken away: presence in the file no longer counts
		}
		e.bytes(f.num, *p)
	case *[][]byte:
		for i := len(*p) - 1; i >= 0; i-- {
			e.bytes(f.num, (*p)[i])
		}
	case *int64:
		e.prependVarint(uint64(*p))
		e.prependTag(f.num, protowire.VarintType)
	case *int32:
		e.prependVarint(uint64(int64(*p)))
		e.prependTag(f.num, protowire.VarintType)
	case *float32:
		var a [4]byte
		binary.LittleEndian.PutUint32(a[:], math.Float32bits(*p))
		e.prepend(a[:])
		e.prependTag(f.num, protowire.Fixed32Type)
	case *[]int64:
		// Unpacked, as every other writer of ONNX does for dims and ints.
		for i := len(*p) - 1; i >= 0; i-- {
			e.prependVarint(uint64((*p)[i]))
			e.prependTag(f.num, protowire.VarintType)
		}
	case *[]float32:
		for i := len(*p) - 1; i >= 0; i-- {
			e.field(&field{num: f.num, p: &(*p)[i]}, true)
		}
	case packedField:
		if !zero {
			e.bytes(f.num, p.payload())
		}
	case messageField:
		for i := p.len() - 1; i >= 0; i-- {
			before := e.size
			if m := p.at(i); !isNil(m) {
				e.message(m)
			}
			e.prependVarint(uint64(e.size - before))
			e.prependTag(f.num, protowire.BytesType)
		}
	}
}

func (e *encoder) bytes(num protowire.Number, b []byte) {
	e.prependView(b)
	e.prependVarint(uint64(len(b)))
	e.prependTag(num, protowire.BytesType)
}

// untouched reports whether m and everything in it still say what its raw bytes say.
func (e *encoder) untouched(m Message) bool {
	s := m.src()
	if s.raw == nil {
		return false
	}
	if t, ok := m.(*Tensor); ok && (t.Data != nil || e.replace[t] != nil) {
		return false
	}
	was := fresh(m)
	e.scratch.shallow = true
	if e.scratch.decode(was, s.raw, 0, 0) != nil {
		return false
	}
	return sameFields(m, was, func(now, was Message) bool {
		return !isNil(now) && now.src().raw != nil && sameBytes(now.src().raw, was.src().raw) && e.untouched(now)
	})
}

// oldFields is what the raw bytes of an edited message had beside values.
type oldFields struct {
	present []protowire.Number
	unknown [][]byte
}

func (o *oldFields) has(n protowire.Number) bool {
	for _, p := range o.present {
		if p == n {
			return true
		}
	}
	return false
}

// oldFieldsOf reads them from the bytes b that m came from.
func oldFieldsOf(m Message, b []byte) oldFields {
	var o oldFields
	tab := fresh(m).fields(nil)
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeField(b)
		if n < 0 {
			break
		}
		i := find(tab, num, 0)
		if i < 0 || !accepts(tab[i].p, typ) {
			o.unknown = append(o.unknown, b[:n])
		} else if !o.has(num) {
			o.present = append(o.present, num)
		}
		b = b[n:]
	}
	return o
}

// accepts reports whether decoding takes a field of this wire type.
func accepts(p any, typ protowire.Type) bool {
	switch p := p.(type) {
	case *string, *[]string, *[]byte, *[][]byte, messageField:
		return typ == protowire.BytesType
	case *int64, *int32:
		return typ == protowire.VarintType
	case *float32:
		return typ == protowire.Fixed32Type
	case *[]int64:
		return typ == protowire.VarintType || typ == protowire.BytesType
	case *[]float32:
		return typ == protowire.Fixed32Type || typ == protowire.BytesType
	case packedField:
		return typ == protowire.BytesType || typ == p.wireType()
	}
	return false
}

// Marshal returns the encoded model, with external data left where it says they
// are. It holds the whole model in memory: use [Model.Save] or [Model.WriteTo]
// for large ones.
func (m *Model) Marshal() ([]byte, error) {
	var e encoder
	if err := e.model(m); err != nil {
		return nil, err
	}
	if e.size > math.MaxInt {
		return nil, ErrTooLarge
	}
	w := &sliceWriter{make([]byte, 0, e.size)}
	_, err := e.writeTo(w)
	return w.b, err
}

type sliceWriter struct{ b []byte }

func (s *sliceWriter) Write(b []byte) (int, error) {
	s.b = append(s.b, b...)
	return len(b), nil
}

// WriteTo writes the encoded model to w, with external data left where it says
// they are, and without holding the model in memory. An untouched model is
// written byte for byte.
func (m *Model) WriteTo(w io.Writer) (int64, error) {
	var e encoder
	if err := e.model(m); err != nil {
		return 0, err
	}
	return e.writeTo(w)
}

// model encodes m after checking that no graph contains itself, which would not end.
func (e *encoder) model(m *Model) error {
	if err := m.Walk(func(*Scope) error { return nil }); err != nil {
		return err
	}
	e.message(m)
	return e.err
}
