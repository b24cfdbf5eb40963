package calib

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"math"

	"github.com/cosetq/cosetq/onnx"
)

// Of a tensor larger than sampleWhole bytes, sampleBlocks blocks of sampleBlock bytes, spread evenly with the first and
// the last included, go into the fingerprint: enough to tell a model from another one trained or rounded differently,
// and 64 pages to read at most however large the tensor is.
const (
	sampleWhole  = 1 << 16
	sampleBlocks = 64
	sampleBlock  = 256
)

// fingerprintPrefix names the rule, so that another one can never give the same text.
const fingerprintPrefix = "cqs1:"

// Fingerprint identifies a model for the purpose of statistics: a hash over the operator sets, and in every graph over the
// inputs, outputs and nodes (operator, values read and written, attributes), and over each tensor's name, type and shape and
// a sample of its bytes. It does not depend on where the model or its weights are stored, on metadata, documentation or
// node names.
func Fingerprint(m *onnx.Model) (string, error) {
	f := &fingerprint{hash: sha256.New()}
	for _, o := range m.OpsetImports {
		f.text(o.Domain)
		f.number(o.Version)
	}
	err := m.Walk(func(s *onnx.Scope) error { return f.scope(s) })
	if err != nil {
		return "", fmt.Errorf("fingerprint: %w", err)
	}
	return fingerprintPrefix + hex.EncodeToString(f.hash.Sum(nil)), nil
}

type fingerprint struct{ hash hash.Hash }

func (f *fingerprint) number(v int64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(v))
	f.hash.Write(b[:])
}

func (f *fingerprint) text(s string) {
	f.number(int64(len(s)))
	_, _ = io.WriteString(f.hash, s) // a hash never fails
}

func (f *fingerprint) texts(list []string) {
	f.number(int64(len(list)))
	for _, s := range list {
		f.text(s)
	}
}

// scope hashes one graph or function body. The scopes inside it follow by themselves, in the order of the walk.
func (f *fingerprint) scope(s *onnx.Scope) error {
	f.text("scope")
	if s.Function != nil {
		f.text(s.Function.ID())
		f.texts(s.Function.Inputs)
		f.texts(s.Function.Outputs)
	}
	if g := s.Graph; g != nil {
		f.values(g.Inputs)
		f.values(g.Outputs)
		f.number(int64(len(g.Initializers)))
		for _, t := range g.Initializers {
			if err := f.tensor(t); err != nil {
				return err
			}
		}
	}
	nodes := s.Nodes()
	f.number(int64(len(nodes)))
	for _, n := range nodes {
		f.text(n.OpID())
		f.texts(n.Inputs)
		f.texts(n.Outputs)
		f.number(int64(len(n.Attributes)))
		for _, a := range n.Attributes {
			if err := f.attribute(a); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *fingerprint) values(list []*onnx.ValueInfo) {
	f.number(int64(len(list)))
	for _, v := range list {
		f.text(v.Name)
		f.text(v.Type.String())
	}
}

func (f *fingerprint) attribute(a *onnx.Attribute) error {
	f.text(a.Name)
	f.text(a.RefAttrName)
	f.number(int64(a.Type))
	f.number(int64(math.Float32bits(a.F)))
	f.number(a.I)
	f.text(string(a.S))
	f.number(int64(len(a.Floats)))
	for _, v := range a.Floats {
		f.number(int64(math.Float32bits(v)))
	}
	f.number(int64(len(a.Ints)))
	for _, v := range a.Ints {
		f.number(v)
	}
	f.number(int64(len(a.Strings)))
	for _, s := range a.Strings {
		f.text(string(s))
	}
	tensors := a.Tensors
	if a.T != nil {
		tensors = append([]*onnx.Tensor{a.T}, tensors...)
	}
	f.number(int64(len(tensors)))
	for _, t := range tensors {
		if err := f.tensor(t); err != nil {
			return err
		}
	}
	return nil
}

func (f *fingerprint) tensor(t *onnx.Tensor) error {
	f.text(t.Name)
	f.number(int64(t.DataType))
	f.number(int64(len(t.Dims)))
	for _, d := range t.Dims {
		f.number(d)
	}
	if t.DataType == onnx.String {
		for _, s := range t.StringData {
			f.text(string(s))
		}
		return nil
	}
	data, err := t.Bytes()
	if err != nil {
		return err
	}
	if len(data) <= sampleWhole {
		f.hash.Write(data)
		return nil
	}
	for i := range sampleBlocks {
		at := int64(len(data)-sampleBlock) * int64(i) / (sampleBlocks - 1)
		f.hash.Write(data[at : at+sampleBlock])
	}
	t.Release()
	return nil
}
