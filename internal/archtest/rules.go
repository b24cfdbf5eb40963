package archtest

// A rule says what the packages of one folder may import besides the standard library and each other.
type rule struct {
	project []string // folders of this module
	modules []string // other modules, or packages of them
}

// anything, as the project part of a rule, allows every folder.
const anything = "*"

// root is the folder of the package that joins the stages. It has a rule of its own, which no other folder inherits.
const root = "."

// rules has an entry for every folder that holds packages; the nearest folder upwards counts. The pipeline runs
//
//	onnx → calib → quant → rewrite → ort → eval → cosetq (the root) → cmd
//
// and each stage knows the data it consumes (onnx, tensor, lattice), never the stages around it in time.
// Tests may import what they like, except cmd.
var rules = map[string]rule{
	// Data and mathematics: they know none of the others.
	"lattice": {},
	"tensor":  {project: []string{"internal/atomicfile"}},
	"onnx":    {project: []string{"internal/atomicfile", "internal/realpath", "internal/regularfile"}, modules: []string{"golang.org/x/sys", "google.golang.org/protobuf/encoding/protowire"}},

	// The stages.
	"calib": {
		project: []string{"internal/atomicfile", "internal/filestart", "internal/regularfile", "internal/strictyaml", "internal/suggest", "onnx", "tensor"},
		modules: []string{"github.com/sbinet/npyio", "golang.org/x/image"},
	},
	"quant": {
		project: []string{"lattice"},
		modules: []string{"github.com/x448/float16", "gonum.org/v1/gonum"}, // gonum: matrices, Cholesky factors
	},
	"journal":  {project: []string{"internal/atomicfile", "lattice", "quant"}, modules: []string{"golang.org/x/sync", "golang.org/x/sys"}}, // x/sync: layers flushed at once; x/sys: layers mapped
	"finetune": {project: []string{"calib", "internal/atomicfile", "lattice", "onnx", "quant", "tensor"}},
	"rewrite":  {project: []string{"cudaops", "internal/suggest", "lattice", "onnx", "quant"}},
	"cudaops":  {project: []string{"internal/checkout"}},
	"ort": {project: []string{"internal/checkout", "lattice", "onnx", "tensor"},
		modules: []string{"github.com/yalue/onnxruntime_go", "gonum.org/v1/gonum"}}, // gonum: the type of matrices
	"eval":        {project: []string{"calib", "internal/suggest", "onnx", "tensor"}},
	"bench":       {project: []string{"eval", "tensor"}},
	"bench/layer": {project: []string{"eval", "lattice", "onnx", "quant", "report", "rewrite", "tensor"}},

	"report": {modules: []string{"gonum.org/v1/plot"}}, // gonum/plot: the charts

	"models": {project: []string{"finetune", "internal/atomicfile", "onnx"}, modules: []string{"golang.org/x/image"}},

	// The whole pipeline as an API: it orders the stages.
	root: {project: []string{"bench", "calib", "cudaops", "eval", "finetune", "internal/atomicfile", "internal/filestart", "internal/lockfile", "internal/realpath", "internal/regularfile", "internal/strictyaml", "internal/suggest", "journal", "lattice", "onnx", "ort", "quant", "report", "rewrite", "tensor"},
		modules: []string{"al.essio.dev/pkg/shellescape", "github.com/goccy/go-yaml", "golang.org/x/sync"}}, // shellescape: options to paste; goccy/go-yaml: writes recipes; x/sync: weights coded at once

	// The command line: flags, progress, printing.
	"cmd/cosetq": {
		project: []string{anything},
		modules: []string{"al.essio.dev/pkg/shellescape", "github.com/schollz/progressbar", "github.com/spf13/cobra", "github.com/spf13/pflag",
			"golang.org/x/sys", "golang.org/x/term"},
	},
	"cmd/quality":    {project: []string{anything}, modules: []string{"golang.org/x/sync"}},
	"cmd/layerbench": {project: []string{anything}, modules: []string{"golang.org/x/sys"}},
	"examples":       {project: []string{anything}},

	"internal/archtest":    {},
	"internal/atomicfile":  {},
	"internal/checkout":    {},
	"internal/browser":     {project: []string{"internal/testenv"}, modules: []string{"github.com/chromedp"}}, // chromedp: drives Chromium
	"internal/conformance": {},
	"internal/filestart":   {project: []string{"internal/regularfile"}},
	"internal/ortversions": {},
	"internal/lockfile":    {},
	"internal/realpath":    {},
	"internal/regularfile": {},
	"internal/strictyaml":  {modules: []string{"github.com/goccy/go-yaml"}},
	"internal/suggest":     {},
	"internal/testenv":     {modules: []string{"golang.org/x/sys/cpu"}},
	"scripts":              {project: []string{"internal/ortversions"}},
}

// cgoFolder is the only one with C in it. A C++ file beside Go files elsewhere breaks the build when cgo is on.
const cgoFolder = "ort"

// testOnly are the folders that only tests may import.
var testOnly = []string{"internal/archtest", "internal/browser", "internal/testenv"}

// vagueNames say nothing about what a package is for.
var vagueNames = []string{"common", "helper", "helpers", "manager", "misc", "shared", "util", "utils"}

// maxLines is the longest that a Go file written by hand may be. Under 400 is what we aim for.
const maxLines = 1000
