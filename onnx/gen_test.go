package onnx

import (
	"bytes"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"
)

// fillRandom sets random fields of m, which is any message, from its schema.
func fillRandom(t *rapid.T, m Message, depth int) {
	won := map[uint8]bool{}
	for _, f := range m.fields(nil) {
		if rapid.IntRange(0, 2).Draw(t, "set") == 0 {
			continue
		}
		if f.oneof != 0 {
			if won[f.oneof] {
				continue
			}
			won[f.oneof] = true
		}
		switch p := f.p.(type) {
		case *string:
			*p = rapid.StringN(1, 6, -1).Draw(t, f.name)
		case *[]string:
			*p = rapid.SliceOfN(rapid.StringN(0, 4, -1), 1, 3).Draw(t, f.name)
		case *[]byte:
			*p = rapid.SliceOfN(rapid.Byte(), 0, 8).Draw(t, f.name)
		case *[][]byte:
			*p = rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 4), 1, 3).Draw(t, f.name)
		case *int64:
			*p = rapid.Int64().Draw(t, f.name)
			if f.has != nil {
				*f.has = true
			}
		case *int32:
			*p = rapid.Int32().Draw(t, f.name)
		case *float32:
			*p = rapid.Float32().Draw(t, f.name)
		case *[]int64:
			*p = rapid.SliceOfN(rapid.Int64(), 1, 4).Draw(t, f.name)
		case *[]float32:
			*p = rapid.SliceOfN(rapid.Float32(), 1, 4).Draw(t, f.name)
		case *Packed[float32]:
			*p = Pack(rapid.SliceOfN(rapid.Float32(), 1, 4).Draw(t, f.name)...)
		case *Packed[float64]:
			*p = Pack(rapid.SliceOfN(rapid.Float64(), 1, 4).Draw(t, f.name)...)
		case *Packed[int32]:
			*p = Pack(rapid.SliceOfN(rapid.Int32(), 1, 4).Draw(t, f.name)...)
		case *Packed[int64]:
			*p = Pack(rapid.SliceOfN(rapid.Int64(), 1, 4).Draw(t, f.name)...)
		case *Packed[uint64]:
			*p = Pack(rapid.SliceOfN(rapid.Uint64(), 1, 4).Draw(t, f.name)...)
		case messageField:
			if depth == 0 {
				continue
			}
			n := 1
			if p.repeated() {
				n = rapid.IntRange(1, 2).Draw(t, f.name)
			}
			for range n {
				fillRandom(t, p.add(), depth-1)
			}
		default:
			t.Fatalf("no random value for %T", p)
		}
	}
	// A typed attribute always has its value, so "not there" cannot survive.
	if a, ok := m.(*Attribute); ok && a.RefAttrName == "" && a.Type == AttrString && a.S == nil {
		a.S = []byte{}
	}
}

func randomModel(t *rapid.T) *Model {
	m := &Model{Graph: &Graph{}}
	fillRandom(t, m, 5)
	if m.Graph == nil {
		m.Graph = &Graph{}
	}
	return m
}

// oddly encodes m in a way no sane writer does: fields in any order, varints
// longer than needed, repeated numbers partly packed, single submessages in two
// pieces, unknown fields in between. What it means is unchanged.
func oddly(t *rapid.T, m Message) []byte {
	var records [][]byte
	add := func(num protowire.Number, typ protowire.Type, val []byte) []byte {
		r := append(longVarint(t, protowire.EncodeTag(num, typ)), val...)
		records = append(records, r)
		return r
	}
	lenPrefix := func(b []byte) []byte { return append(longVarint(t, uint64(len(b))), b...) }
	var fieldOf []protowire.Number
	note := func(num protowire.Number) {
		for len(fieldOf) < len(records) {
			fieldOf = append(fieldOf, num)
		}
	}
	for _, f := range m.fields(nil) {
		if isZero(&f) && !f.force && (f.has == nil || !*f.has) {
			continue
		}
		switch p := f.p.(type) {
		case *string:
			add(f.num, protowire.BytesType, lenPrefix([]byte(*p)))
		case *[]string:
			for _, s := range *p {
				add(f.num, protowire.BytesType, lenPrefix([]byte(s)))
			}
		case *[]byte:
			add(f.num, protowire.BytesType, lenPrefix(*p))
		case *[][]byte:
			for _, s := range *p {
				add(f.num, protowire.BytesType, lenPrefix(s))
			}
		case *int64:
			add(f.num, protowire.VarintType, longVarint(t, uint64(*p)))
		case *int32:
			add(f.num, protowire.VarintType, longVarint(t, uint64(int64(*p))))
		case *float32:
			add(f.num, protowire.Fixed32Type, protowire.AppendFixed32(nil, math.Float32bits(*p)))
		case *[]int64:
			if rapid.Bool().Draw(t, "packed") {
				var b []byte
				for _, v := range *p {
					b = append(b, longVarint(t, uint64(v))...)
				}
				add(f.num, protowire.BytesType, lenPrefix(b))
			} else {
				for _, v := range *p {
					add(f.num, protowire.VarintType, longVarint(t, uint64(v)))
				}
			}
		case *[]float32:
			var b []byte
			for _, v := range *p {
				b = protowire.AppendFixed32(b, math.Float32bits(v))
			}
			add(f.num, protowire.BytesType, lenPrefix(b))
		case packedField:
			// Unpacked: the numbers are their own records.
			for b := p.payload(); len(b) > 0; {
				n := protowire.ConsumeFieldValue(1, p.wireType(), b)
				add(f.num, p.wireType(), b[:n])
				b = b[n:]
			}
		case messageField:
			for i := range p.len() {
				b := oddly(t, p.at(i))
				if !p.repeated() && f.oneof == 0 && rapid.IntRange(0, 3).Draw(t, "split") == 0 {
					cut := splitPoint(b)
					add(f.num, protowire.BytesType, lenPrefix(b[:cut]))
					b = b[cut:]
				}
				add(f.num, protowire.BytesType, lenPrefix(b))
			}
		}
		note(f.num)
	}
	if rapid.IntRange(0, 2).Draw(t, "unknown") == 0 {
		add(900, protowire.BytesType, lenPrefix([]byte("from the future")))
		note(900)
		add(901, protowire.Fixed64Type, make([]byte, 8))
		note(901)
		add(902, protowire.StartGroupType, protowire.AppendTag(nil, 902, protowire.EndGroupType))
		note(902)
	}
	// A random order that keeps the order within each field.
	var groups [][][]byte
	byNum := map[protowire.Number]int{}
	for i, r := range records {
		g, ok := byNum[fieldOf[i]]
		if !ok {
			g = len(groups)
			byNum[fieldOf[i]] = g
			groups = append(groups, nil)
		}
		groups[g] = append(groups[g], r)
	}
	var out bytes.Buffer
	for len(groups) > 0 {
		g := rapid.IntRange(0, len(groups)-1).Draw(t, "next")
		out.Write(groups[g][0])
		if groups[g] = groups[g][1:]; len(groups[g]) == 0 {
			groups = append(groups[:g], groups[g+1:]...)
		}
	}
	return out.Bytes()
}

// splitPoint returns a boundary between two fields of an encoded message.
func splitPoint(b []byte) int {
	at := 0
	for at < len(b)/2 {
		_, _, n := protowire.ConsumeField(b[at:])
		at += n
	}
	return at
}

// longVarint appends up to two needless bytes, as the format allows.
func longVarint(t *rapid.T, v uint64) []byte {
	b := protowire.AppendVarint(nil, v)
	for range rapid.IntRange(0, 2).Draw(t, "long") {
		if len(b) < 4 {
			b[len(b)-1] |= 0x80
			b = append(b, 0)
		}
	}
	return b
}
