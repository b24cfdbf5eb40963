//go:build cgo && linux

package ort

import "testing"

// Names of nodes may hold anything; ONNX Runtime does not escape them.
func TestProfileWithQuotedNames(t *testing.T) {
	runs, err := parseProfile([]byte(`[
{"cat" : "Session","pid" :1,"tid" :1,"dur" :591,"ts" :15,"ph" : "X","name" :"model_loading_uri","args" : {}},
{"cat" : "Node","pid" :1,"tid" :1,"dur" :137,"ts" :7275,"ph" : "X","name" :"a "q"
	C:\x_kernel_time","args" : {"op_name" : "MatMul","provider" : "CPUExecutionProvider"}}
]
`))
	if err != nil || len(runs) != 1 || runs[0].Node != "a \"q\"\n\tC:\\x" || runs[0].Op != "MatMul" || runs[0].Provider != "CPUExecutionProvider" {
		t.Errorf("%+v, %v", runs, err)
	}
}
