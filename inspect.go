package cosetq

import (
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/rewrite"
)

// InspectedNode is one MatMul or Gemm of a model.
type InspectedNode struct {
	Node        string `json:"node"`
	Op          string `json:"op"`
	Initializer string `json:"initializer"`
	K           int    `json:"k"`
	N           int    `json:"n"`
	DType       string `json:"dtype"`
	Status      string `json:"status"`
	Reason      string `json:"reason,omitempty"`
	Detail      string `json:"detail,omitempty"`
}

// InspectReport is what is in a model.
type InspectReport struct {
	Schema    string          `json:"schema"`
	Path      string          `json:"path"`
	IRVersion int64           `json:"ir_version"`
	Opset     int64           `json:"opset"`
	Bytes     int64           `json:"bytes"`
	Inputs    []string        `json:"inputs"`
	Outputs   []string        `json:"outputs"`
	Weights   int64           `json:"weights"`
	Coverage  float64         `json:"coverage"`
	Nodes     []InspectedNode `json:"nodes"`
}

// Inspect lists the MatMul and Gemm nodes of a model and says of each whether it can be quantized. It reads no weights.
func Inspect(path string, opts rewrite.Options) (*InspectReport, error) {
	m, err := OpenModel(path)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	sites, err := rewrite.FindSites(m, opts)
	if err != nil {
		return nil, err
	}
	r := &InspectReport{Schema: "cosetq/v1/inspect", Path: m.Path(), IRVersion: m.IRVersion, Nodes: []InspectedNode{}}
	r.Opset, _ = m.Opset("")
	if r.Bytes, err = modelBytes(m); err != nil {
		return nil, err
	}
	inputs, outputs, err := ort.Signature(m)
	if err != nil {
		return nil, fail(BadModel, err, "")
	}
	for _, s := range inputs {
		r.Inputs = append(r.Inputs, s.String())
	}
	for _, s := range outputs {
		r.Outputs = append(r.Outputs, s.String())
	}
	for i := range sites {
		s := &sites[i]
		r.Nodes = append(r.Nodes, InspectedNode{Node: s.Name, Op: s.Op, Initializer: s.Initializer, K: s.K, N: s.N,
			DType: s.DType.String(), Status: string(s.Status), Reason: string(s.Reason), Detail: s.Detail})
	}
	r.Weights, r.Coverage = rewrite.Coverage(sites)
	return r, nil
}
