package rewrite

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
)

// minIRVersion is the first that has model-local functions, minIRUnlisted the first whose initializers need not be listed
// among the inputs.
const (
	minIRVersion  = 8
	minIRUnlisted = 4
)

// Keys of the metadata that Apply writes, and of the recipe that whoever calls it may add.
const (
	MetadataVersion = "cosetq.version"
	MetadataCodec   = "cosetq.codec"
	MetadataNote    = "cosetq.note"
	MetadataRecipe  = "cosetq.recipe"
)

// ExternalThreshold is the size in bytes from which tensors of a rewritten model should lie beside it, see [onnx.SaveOptions]: there
// the codes of a weight that several graphs use are stored once.
const ExternalThreshold = 4096

// note tells whoever opens the file how to run it fast.
const note = "Runs as it is in any ONNX runtime with model-local functions; for speed load " + cudaops.LibraryName +
	" with RegisterCustomOpsLibrary (`cosetq export --ops-dir`); `cosetq export` gives plain ONNX."

// Replacement is a site and the code of its weight. Sites with the same Weight should get the same Matrix: a Matrix is
// stored once in each graph that uses it.
type Replacement struct {
	Site   Site
	Matrix *quant.Matrix
	// Correction [N], if set, is added to the bias of the site: W·E[x] less what the code makes of it. A site without a
	// bias does without, because a new one would cost 32/K bits per weight.
	Correction []float32
}

// Result says what [Apply] did.
type Result struct {
	Nodes    int   // nodes replaced
	Matrices int   // different weights coded
	Weights  int64 // numbers that are coded now, N·K summed: in these matrices, and in those that the model had before
	Bytes    int64 // what they take, the codebooks and what stands in several graphs included, in files saved with ExternalThreshold
	Removed  []string
}

// BitsPerWeight is 8·Bytes/Weights: everything stored for the weights.
func (r *Result) BitsPerWeight() float64 { return 8 * float64(r.Bytes) / float64(r.Weights) }

// Apply replaces the sites, which must come from FindSites on the unchanged m, by HNLQLinear and HNLQGather nodes: it adds their
// tensors, the functions, the opset import and the metadata, and removes the tensors and nodes that nothing uses any more. version is
// the version of cosetq to record. After an error m is unchanged. The matrices must not be changed before m is written.
// All sites of m become stale.
func Apply(m *onnx.Model, replacements []Replacement, version string) (*Result, error) {
	if len(replacements) == 0 {
		return nil, fmt.Errorf("rewrite: %w: no replacements are given", ErrNothing)
	}
	before, err := supported(m)
	if err != nil {
		return nil, err
	}
	opset, _ := m.Opset("")
	needed := functionsOf(before) // the nodes that are there already count as well
	for i := range replacements {
		if err := check(&replacements[i]); err != nil {
			return nil, err
		}
		needed.add(replacements[i].Site.linear.gather, replacements[i].Matrix)
	}
	written := needed.write(opset)
	for _, f := range written {
		stepAside(m, f)
	}

	e := newEditor(m, opset)
	e.result.count(before)
	for i := range replacements {
		if err := e.prepare(&replacements[i].Site, replacements[i].Correction); err != nil {
			return nil, err
		}
	}
	for i := range replacements {
		r := &replacements[i]
		w := e.store(r.Matrix, r.Site.linear)
		e.replace(&r.Site, func(activation, bias, output string) []*onnx.Node {
			if r.Site.linear.gather {
				return []*onnx.Node{w.gather(activation, output, r.Site.DType)}
			}
			if bias == "" {
				bias = e.noBias(r.Site.linear.scope.Graph, r.Site.DType)
			}
			return []*onnx.Node{w.node(activation, bias, output, r.Site.DType)}
		})
	}
	e.finish()
	e.tabulate(before)
	if needed.linear != nil && needed.linear.turned {
		e.rotateAll()
	}

	m.Functions = append(slices.DeleteFunc(m.Functions, isOurs), written...)
	m.SetOpset(cudaops.Domain, cudaops.OpVersion)
	raiseIRVersion(m, minIRVersion)
	m.SetMetadata(MetadataVersion, version)
	m.SetMetadata(MetadataCodec, e.codecNames(before))
	m.SetMetadata(MetadataNote, note)
	e.result.Removed = prune(m, e.dropped)
	return &e.result, nil
}

// ErrNothing is the error of a model that has nothing of what was to be replaced or observed.
var ErrNothing = errors.New("nothing to do")

// ErrOpset is the error of a model whose operators are of a version that the decoder is not written for.
var ErrOpset = fmt.Errorf("the decoder is written for opset %d to %d", MinOpset, MaxOpset)

// count adds what was coded before.
func (r *Result) count(linears []*Linear) {
	weights, shared := map[string]bool{}, map[*onnx.Value]bool{}
	for _, l := range linears {
		if !weights[l.key] {
			weights[l.key] = true
			r.Weights += int64(l.Matrix.N) * int64(l.Matrix.K)
			r.Bytes += l.Matrix.Bytes()
		}
		if book := l.stored[codebookInput]; !shared[book] {
			shared[book] = true
			r.Bytes += int64(len(quant.LayoutOf(l.Matrix.Codec).Codebook))
		}
		if signs := l.stored[signsInput]; signs != nil && l.Matrix.Rotation == nil && !shared[signs] {
			shared[signs] = true
			r.Bytes += int64(l.Matrix.K+7) / 8
		}
	}
}

// Supports returns an error when [Apply] cannot rewrite m, whatever is replaced.
func Supports(m *onnx.Model) error {
	_, err := supported(m)
	return err
}

// supported is Supports, and returns what is coded already.
func supported(m *onnx.Model) ([]*Linear, error) {
	opset, ok := m.Opset("")
	if !ok {
		return nil, errors.New("rewrite: the model imports no opset of the default domain; it is damaged or needs none of its operators")
	}
	if opset < MinOpset || opset > MaxOpset {
		return nil, fmt.Errorf("rewrite: the model uses opset %d: %w", opset, ErrOpset)
	}
	if v, ok := m.Opset(cudaops.Domain); ok && v != cudaops.OpVersion {
		return nil, fmt.Errorf("rewrite: the model imports version %d of %s; this program writes version %d", v, cudaops.Domain, cudaops.OpVersion)
	}
	return ReadLinears(m) // their functions are written anew
}

// check makes sure that a replacement can be done, before anything is changed.
func check(r *Replacement) error {
	s := &r.Site
	if s.Status != Candidate || s.linear == nil {
		return fmt.Errorf("rewrite: site %q is %s %s, so it cannot be replaced", s.Name, s.Status, s.Reason)
	}
	if r.Matrix == nil {
		return fmt.Errorf("rewrite: site %q comes without a matrix", s.Name)
	}
	if r.Matrix.N != s.N || r.Matrix.K != s.K {
		return fmt.Errorf("rewrite: site %q has a weight of %d × %d, its matrix is %d × %d", s.Name, s.N, s.K, r.Matrix.N, r.Matrix.K)
	}
	if s.linear.gather && r.Matrix.Rotation != nil {
		return fmt.Errorf("rewrite: site %q is an embedding, and its matrix has a rotation: %s takes none", s.Name, cudaops.GatherName)
	}
	if r.Correction != nil && len(r.Correction) != s.N {
		return fmt.Errorf("rewrite: site %q has %d outputs, its correction %d", s.Name, s.N, len(r.Correction))
	}
	if err := r.Matrix.Validate(); err != nil {
		return fmt.Errorf("rewrite: site %q: %w", s.Name, err)
	}
	return nil
}

// isOurs reports whether f decodes our weights.
func isOurs(f *onnx.Function) bool {
	return f.Domain == cudaops.Domain && (f.Name == cudaops.OpName || f.Name == cudaops.GatherName)
}

// stepAside renames the inner values of f, one of ours, in a model that ONNX Runtime has saved with functions of that name inlined: it
// calls what it inlines _inlfunc_NAME_VALUE without looking whether the model has that name, and refuses the model where it does.
func stepAside(m *onnx.Model, f *onnx.Function) {
	var taken []string
	for _, s := range m.Scopes() {
		var names []string
		if s.Graph != nil {
			for _, t := range s.Graph.Initializers {
				names = append(names, t.Name)
			}
		}
		for _, n := range s.Nodes() {
			names = append(names, n.Outputs...)
		}
		for _, name := range names {
			if strings.HasPrefix(name, "_inlfunc_"+f.Name) {
				taken = append(taken, name)
			}
		}
	}
	if len(taken) == 0 {
		return
	}
	suffix := ""
	for serial := 2; suffix == "" || slices.ContainsFunc(taken, func(name string) bool { return strings.HasSuffix(name, suffix) }); serial++ {
		suffix = fmt.Sprintf(".%d", serial)
	}
	rename := func(names []string) {
		for i, name := range names {
			if name != "" && !slices.Contains(f.Inputs, name) && !slices.Contains(f.Outputs, name) {
				names[i] += suffix
			}
		}
	}
	for _, n := range f.Nodes {
		rename(n.Inputs)
		rename(n.Outputs)
	}
}

// raiseIRVersion raises it to least, if it is below. Before version 4 initializers are listed among the inputs without
// being overridable; from 4 on the listing would make them so, and is dropped.
func raiseIRVersion(m *onnx.Model, least int64) {
	if m.IRVersion < minIRUnlisted && least >= minIRUnlisted {
		for _, s := range m.Scopes() {
			if s.Graph != nil {
				s.Graph.Inputs = slices.DeleteFunc(s.Graph.Inputs, func(in *onnx.ValueInfo) bool {
					return s.Graph.Initializer(in.Name) != nil
				})
			}
		}
	}
	m.IRVersion = max(m.IRVersion, least)
}
