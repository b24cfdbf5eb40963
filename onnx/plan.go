package onnx

import (
	"fmt"
	"reflect"
	"strconv"
	"unsafe"
)

// plan decides where the data of every tensor go and encodes the model.
func (s *saver) plan() error {
	s.docs = make(map[*document]bool)
	if s.m.doc != nil {
		s.docs[s.m.doc] = true
	}
	hasExternal := false
	err := s.m.Walk(func(sc *Scope) error {
		var err error
		sc.tensors(func(r TensorRef) bool {
			hasExternal = hasExternal || r.Tensor.IsExternal()
			err = s.checkTensor(r)
			return err == nil
		})
		return err
	})
	if err != nil {
		return err
	}
	external := false
	switch s.opt.External {
	case ExternalAlways:
		external = true
	case ExternalAuto:
		if external = hasExternal; !external {
			s.enc.message(s.m)
			if s.enc.err != nil || s.enc.size < autoLimit {
				return s.enc.err
			}
			external = true
		}
	}
	s.enc = encoder{replace: make(map[*Tensor]*Tensor)}
	var large, small []*Tensor
	for r := range s.m.Tensors() {
		t := r.Tensor
		if s.enc.replace[t] != nil || t.DataType == String || !t.DataType.known() {
			continue
		}
		switch {
		case external && s.goesOut(r):
			size, err := t.ByteSize()
			if err != nil {
				return err
			}
			if size >= pagedFrom {
				large = append(large, t)
			} else {
				small = append(small, t)
			}
		case t.IsExternal():
			b, err := t.RawBytes()
			if err != nil {
				return err
			}
			in := *t
			in.RawData, in.ExternalData, in.DataLocation = b, nil, LocationDefault
			s.enc.replace[t] = &in
		}
	}
	shared := make(map[any]int64)
	for _, t := range large {
		if err := s.moveOut(t, shared, pageAlign); err != nil {
			return err
		}
	}
	for _, t := range small {
		if err := s.moveOut(t, shared, lineAlign); err != nil {
			return err
		}
	}
	s.enc.message(s.m)
	return s.enc.err
}

// checkTensor refuses to write a tensor whose data are not what it says.
func (s *saver) checkTensor(r TensorRef) error {
	t := r.Tensor
	if t.doc != nil {
		s.docs[t.doc] = true
	}
	if t.DataType != String && !t.DataType.known() {
		if t.IsExternal() || t.Data != nil {
			return fmt.Errorf("%s: %w %v: its data cannot be copied", r.Where(), ErrDataType, t.DataType)
		}
		return nil // of the future: kept as it is
	}
	if err := t.Validate(); err != nil {
		return fmt.Errorf("%s: %w", r.Where(), err)
	}
	return nil
}

// goesOut tells whether a tensor is stored beside the model when data are.
func (s *saver) goesOut(r TensorRef) bool {
	if r.Tensor.IsExternal() {
		return true
	}
	if r.Role != RoleInitializer {
		return false
	}
	threshold := s.opt.ExternalThreshold
	if threshold == 0 {
		threshold = defaultThreshold
	}
	size, err := r.Tensor.ByteSize()
	return err == nil && size > 0 && size >= threshold
}

// view identifies bytes in memory; tensors that share theirs go on doing so.
type view struct {
	at   *byte
	size int64
}

// identity returns what tensors with the same data share, or nil: their bytes in memory, or their Data.
func identity(t *Tensor, size int64) any {
	if t.Data != nil {
		if reflect.TypeOf(t.Data).Comparable() {
			return t.Data
		}
		return nil
	}
	if b, err := t.rawBytes(); err == nil && size > 0 {
		return view{unsafe.SliceData(b), size}
	}
	return nil
}

// moveOut gives t a place in the external file, a multiple of align, and encodes it as a reference there.
func (s *saver) moveOut(t *Tensor, shared map[any]int64, align int64) error {
	if s.enc.replace[t] != nil {
		return nil // it stands in the model twice
	}
	size, err := t.ByteSize()
	if err != nil {
		return err
	}
	offset, found := int64(0), false
	if key := identity(t, size); key != nil {
		if offset, found = shared[key]; !found {
			shared[key] = alignUp(s.dataEnd, align)
		}
	}
	if !found {
		offset = alignUp(s.dataEnd, align)
		s.entries = append(s.entries, dataEntry{t, offset, size})
		s.dataEnd = offset + size
	}
	out := *t
	out.Data, out.RawData = nil, nil
	out.FloatData, out.Int32Data, out.Int64Data = Packed[float32]{}, Packed[int32]{}, Packed[int64]{}
	out.DoubleData, out.Uint64Data = Packed[float64]{}, Packed[uint64]{}
	out.DataLocation = LocationExternal
	out.ExternalData = []*Property{
		{Key: "location", Value: s.dataName},
		{Key: "offset", Value: strconv.FormatInt(offset, 10)},
		{Key: "length", Value: strconv.FormatInt(size, 10)},
	}
	for _, p := range t.ExternalData {
		switch {
		case p == nil, p.Key == "location", p.Key == "offset", p.Key == "length", p.Key == "checksum":
			// The checksum is one of the whole old file.
		default:
			out.ExternalData = append(out.ExternalData, p)
		}
	}
	s.enc.replace[t] = &out
	return nil
}

func alignUp(n, align int64) int64 { return (n + align - 1) / align * align }
