package cudaops

import (
	"embed"
	"fmt"
)

//go:embed snippets include/cosetq/cosetq.h include/cosetq/cuda.h include/cosetq/ep.h
var shipped embed.FS

// Snippet is a short program that runs a quantized model with the native library. It takes the path of the model and that
// of the library.
type Snippet struct {
	Language string
	Name     string // file name
	GPU      bool   // it takes the path of the library of GPU kernels as well
	Text     []byte
}

// Snippets returns one program for each language, one that runs on a GPU and one that generates text, those that `cosetq export --ops-dir` ships.
func Snippets() []Snippet {
	snippets := []Snippet{
		{Language: "Python", Name: "run.py"},
		{Language: "Python, NVIDIA GPU", Name: "run_gpu.py", GPU: true},
		{Language: "Python, ONNX Runtime GenAI", Name: "generate.py"},
		{Language: "C", Name: "run.c"},
		{Language: "C#", Name: "Run.cs"},
		{Language: "Node", Name: "run.mjs"},
		{Language: "Web", Name: "run.html"},
		{Language: "Go", Name: "run.go.txt"},
	}
	for i := range snippets {
		snippets[i].Text = mustRead("snippets/" + snippets[i].Name)
	}
	return snippets
}

// PublicHeader is the C header of the library, include/cosetq/cosetq.h.
func PublicHeader() []byte { return mustRead("include/cosetq/cosetq.h") }

// GPUHeaders are the C headers of the library of GPU kernels, by the names under which they are shipped: CUDA has a cuda.h of its own.
func GPUHeaders() map[string][]byte {
	return map[string][]byte{
		"cosetq_cuda.h": mustRead("include/cosetq/cuda.h"),
		"cosetq_ep.h":   mustRead("include/cosetq/ep.h"),
	}
}

func mustRead(name string) []byte {
	text, err := shipped.ReadFile(name)
	if err != nil {
		panic(fmt.Sprintf("cudaops: embedded file: %v", err))
	}
	return text
}
