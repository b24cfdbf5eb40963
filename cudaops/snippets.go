package cudaops

import (
	"embed"
	"fmt"
)

//go:embed snippets include/cosetq/cosetq.h
var shipped embed.FS

// Snippet is a short program that runs a quantized model with the native library. It takes the path of the model and that
// of the library.
type Snippet struct {
	Language string
	Name     string // file name
	Text     []byte
}

// Snippets returns one program for each language and one that generates text, those that `cosetq export --ops-dir` ships.
func Snippets() []Snippet {
	snippets := []Snippet{
		{Language: "Python", Name: "run.py"},
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

func mustRead(name string) []byte {
	text, err := shipped.ReadFile(name)
	if err != nil {
		panic(fmt.Sprintf("cudaops: embedded file: %v", err))
	}
	return text
}
