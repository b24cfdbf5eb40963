package onnx

import (
	"bytes"
	"crypto/sha256"
	"math"
	"reflect"
	"slices"
	"sync"
)

// Equal reports whether a and b, of the same type, say the same: all known
// fields, recursively. Floats are compared by their bits. Where the messages
// came from, how they were encoded and their unknown fields are not looked at;
// two [Data] are equal when they produce the same bytes.
func Equal(a, b Message) bool {
	if isNil(a) || isNil(b) {
		return isNil(a) && isNil(b)
	}
	return sameFields(a, b, Equal)
}

// Clone returns a deep copy of m that can be edited independently. Raw bytes of
// tensors are shared: they are views into the file, or the slice that was
// assigned. The copy of an untouched message is still written as the bytes it
// was parsed from.
func Clone[M Message](m M) M {
	if isNil(m) {
		return m
	}
	return clone(m).(M)
}

func isNil(m Message) bool { return m == nil || reflect.ValueOf(m).IsNil() }

// fresh returns a new empty message of the type of m.
func fresh(m Message) Message {
	return reflect.New(reflect.TypeOf(m).Elem()).Interface().(Message)
}

func clone(m Message) Message {
	c := fresh(m)
	reflect.ValueOf(c).Elem().Set(reflect.ValueOf(m).Elem())
	for _, f := range c.fields(nil) {
		switch p := f.p.(type) {
		case *[]string:
			*p = slices.Clone(*p)
		case *[][]byte:
			*p = slices.Clone(*p)
		case *[]int64:
			*p = slices.Clone(*p)
		case *[]float32:
			*p = slices.Clone(*p)
		case messageField:
			var list []Message
			for i := range p.len() {
				list = append(list, p.at(i))
			}
			p.clear()
			for _, x := range list {
				if isNil(x) {
					p.put(x)
				} else {
					p.put(clone(x))
				}
			}
		}
	}
	return c
}

// sameFields compares two messages of one type, submessages by same.
func sameFields(a, b Message, same func(a, b Message) bool) bool {
	if reflect.TypeOf(a) != reflect.TypeOf(b) {
		return false
	}
	if t, ok := a.(*Tensor); ok && !sameProducer(t.Data, b.(*Tensor).Data) {
		return false
	}
	buf := schemas.Get().(*[2 * maxFields]field)
	defer func() {
		clear(buf[:]) // keep no message alive
		schemas.Put(buf)
	}()
	fa, fb := a.fields(buf[:0:maxFields]), b.fields(buf[maxFields:maxFields])
	for i := range fa {
		if !sameField(&fa[i], &fb[i], same) {
			return false
		}
	}
	return true
}

// sameProducer reports whether two Data produce the same bytes, running them only
// when they are not the same thing.
func sameProducer(a, b Data) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	if va, vb := reflect.ValueOf(a), reflect.ValueOf(b); va.Comparable() && vb.Comparable() && a == b {
		return true
	}
	if a.Size() != b.Size() {
		return false
	}
	ha, hb := sha256.New(), sha256.New()
	_, errA := writePart(ha, part{data: a})
	_, errB := writePart(hb, part{data: b})
	return errA == nil && errB == nil && bytes.Equal(ha.Sum(nil), hb.Sum(nil))
}

// maxFields is the most fields a message has.
const maxFields = 18

// schemas are scratch buffers for two schemas: comparing is what writing a model
// does most, and would leave much garbage.
var schemas = sync.Pool{New: func() any { return new([2 * maxFields]field) }}

func sameField(a, b *field, same func(a, b Message) bool) bool {
	if a.has != nil && (*a.has || !isZero(a)) != (*b.has || !isZero(b)) {
		return false
	}
	switch p := a.p.(type) {
	case *string:
		return *p == *b.p.(*string)
	case *[]string:
		return slices.Equal(*p, *b.p.(*[]string))
	case *[]byte:
		q := *b.p.(*[]byte)
		return (*p == nil) == (q == nil) && sameBytes(*p, q)
	case *[][]byte:
		return slices.EqualFunc(*p, *b.p.(*[][]byte), sameBytes)
	case *int64:
		return *p == *b.p.(*int64)
	case *int32:
		return *p == *b.p.(*int32)
	case *float32:
		return math.Float32bits(*p) == math.Float32bits(*b.p.(*float32))
	case *[]int64:
		return slices.Equal(*p, *b.p.(*[]int64))
	case *[]float32:
		return slices.EqualFunc(*p, *b.p.(*[]float32), func(x, y float32) bool {
			return math.Float32bits(x) == math.Float32bits(y)
		})
	case packedField:
		return sameBytes(p.payload(), b.p.(packedField).payload())
	case messageField:
		q := b.p.(messageField)
		if p.len() != q.len() {
			return false
		}
		for i := range p.len() {
			if !same(p.at(i), q.at(i)) {
				return false
			}
		}
		return true
	}
	return false
}

// sameBytes does not read what is the same memory: a weight of gigabytes that
// nobody replaced costs nothing to compare.
func sameBytes(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	return len(a) == 0 || &a[0] == &b[0] || bytes.Equal(a, b)
}

// isZero reports whether a field needs no bytes, presence aside.
func isZero(f *field) bool {
	switch p := f.p.(type) {
	case *string:
		return *p == ""
	case *[]string:
		return len(*p) == 0
	case *[]byte:
		return *p == nil
	case *[][]byte:
		return len(*p) == 0
	case *int64:
		return *p == 0
	case *int32:
		return *p == 0
	case *float32:
		return math.Float32bits(*p) == 0
	case *[]int64:
		return len(*p) == 0
	case *[]float32:
		return len(*p) == 0
	case packedField:
		return len(p.payload()) == 0
	case messageField:
		return p.len() == 0
	}
	return true
}
