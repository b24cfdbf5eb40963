package cosetq

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/cosetq/cosetq/finetune/grad"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// A sample with its gradient takes two to three times the time of one without, and a text gives more draws than are of use
// (docs/calibration.md). Where there are more than drawsPerRow for each row of the widest G, only some samples, evenly spread and
// leastImportant of them at least, have their gradients computed. Of the others no more is learned than what is multiplied by weights.
const (
	drawsPerRow    = 4
	leastImportant = 32
)

// importance finds what an error of a layer costs at each row of its activations: the squared gradient, with respect to the
// layer's output, of −log p(c) for a class c drawn from the model's own distribution p. Its mean is the Fisher information, the
// second derivative of the divergence between the outputs of the float and the quantized model. No labels are needed.
type importance struct {
	model   *onnx.Model
	sites   []rewrite.Site
	load    grad.Loader  // loads with the native library
	free    func() int64 // bytes of memory that are, 0 where that is not known
	lanes   int          // samples that are run at the same time
	mapped  bool         // tables of which rows are looked up stay in their files
	again   bool         // activations are computed again block by block, as memory has no room for all
	session grad.Session
	shapes  string       // of the inputs that session is for
	reads   []string     // inputs of session: of the model's, those that matter at these shapes, which an empty cache does not
	plain   grad.Session // observes samples without gradients
	every   int          // how many samples there are for each with gradients
	noise   *grad.Value
	ahead   map[int]chan []float32 // by batch: noise that is made before it is its turn
	// gradients are the observations of the gradients, once the model was differentiated, and draws the classes drawn for them.
	gradients []rewrite.Observation
	draws     int64
}

func (i *importance) close() {
	if i == nil {
		return
	}
	for _, s := range []*grad.Session{&i.session, &i.plain} {
		if *s != nil {
			_ = (*s).Close()
			*s = nil
		}
	}
}

// prepare returns the session that observes batch n of so many, and what to feed it. With gradients, batches of other shapes than
// the last one need another graph: settle is called before the one there is goes.
func (i *importance) prepare(ctx context.Context, list []rewrite.Observation, n, batches int, inputs map[string]*tensor.Tensor, settle func() error) (grad.Session, map[string]*tensor.Tensor, error) {
	if n == 0 || n%i.every == 0 {
		fed, err := i.feed(ctx, list, n, inputs, settle)
		if err == nil && n == 0 {
			i.every = i.stride(batches)
		}
		return i.session, fed, err
	}
	var err error
	if i.plain == nil {
		m := onnx.Clone(i.model)
		rewrite.ObserveAlike(m, list)
		i.plain, err = i.load(m, false)
	}
	return i.plain, inputs, err
}

// stride is how many of so many batches there are for each that needs gradients, judged by the draws of the first. It does not depend on
// what is observed: shards choose alike.
func (i *importance) stride(batches int) int {
	widest := 0
	for _, s := range i.sites {
		if s.Status == rewrite.Candidate && s.N <= rewrite.MaxFullColumns {
			widest = max(widest, s.N)
		}
	}
	needed := max(leastImportant, (drawsPerRow*int64(widest)+i.draws-1)/i.draws)
	return max(1, int(int64(batches)/needed))
}

// mostNoise bounds the noise that is made before it is its turn, in bytes.
const mostNoise = 1 << 30

// room tells whether noise of one more batch may be made on another thread.
func (i *importance) room(threads int) bool {
	return i != nil && i.session != nil && len(i.ahead) < threads && int64(len(i.ahead)+1)*4*i.noise.Count() <= mostNoise
}

// begin starts to make the noise of batch n where that is known to be wanted. A text with many tokens to choose from takes more time for
// it than a GPU for all else.
func (i *importance) begin(n int, inputs map[string]*tensor.Tensor) {
	if i == nil || i.session == nil || n%i.every != 0 || shapesOf(inputs) != i.shapes {
		return
	}
	noise := make(chan []float32, 1)
	i.ahead[n] = noise
	count := i.noise.Count()
	go func() { noise <- gumbel(inputs, count) }()
}

func shapesOf(inputs map[string]*tensor.Tensor) string {
	shapes := ""
	for _, name := range slices.Sorted(maps.Keys(inputs)) {
		shapes += fmt.Sprint(name, inputs[name].Shape)
	}
	return shapes
}

// noiseBlock is how many numbers of noise one thread makes.
const noiseBlock = 1 << 22

// gumbel is noise that depends on the sample alone, so that parts of the data give parts of the sums.
func gumbel(inputs map[string]*tensor.Tensor, count int64) []float32 {
	hash := fnv.New64a()
	for _, name := range slices.Sorted(maps.Keys(inputs)) {
		hash.Write(inputs[name].Data)
	}
	noise := make([]float32, count)
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	stream := uint64(0)
	for block := range slices.Chunk(noise, noiseBlock) {
		stream++
		rng := rand.New(rand.NewPCG(hash.Sum64(), stream))
		group.Go(func() error {
			for j := range block {
				block[j] = float32(-math.Log(rng.ExpFloat64()))
			}
			return nil
		})
	}
	_ = group.Wait() // nothing fails
	return noise
}

// feed returns what the model with its gradient is to be fed in batch n.
func (i *importance) feed(ctx context.Context, list []rewrite.Observation, n int, inputs map[string]*tensor.Tensor, settle func() error) (map[string]*tensor.Tensor, error) {
	shapes := shapesOf(inputs)
	if i.session == nil || shapes != i.shapes {
		if err := settle(); err != nil {
			return nil, err
		}
		if i.session != nil {
			_ = i.session.Close()
			i.session = nil
		}
		i.shapes = shapes
		if err := i.build(ctx, list, inputs); err != nil {
			return nil, err
		}
	}
	var noise []float32
	if made := i.ahead[n]; made != nil {
		noise = <-made
		delete(i.ahead, n)
	}
	if int64(len(noise)) != i.noise.Count() { // shapes have changed meanwhile
		noise = gumbel(inputs, i.noise.Count())
	}
	i.draws += i.noise.Count() / i.noise.Shape[len(i.noise.Shape)-1]
	fed := map[string]*tensor.Tensor{}
	for _, name := range i.reads {
		fed[name] = inputs[name]
	}
	fed[i.noise.Name] = tensor.Of(noise, i.noise.Shape...)
	return fed, nil
}

// build differentiates the model for the shapes of inputs.
func (i *importance) build(ctx context.Context, list []rewrite.Observation, inputs map[string]*tensor.Tensor) error {
	g, err := grad.Trace(ctx, i.model, i.load, inputs)
	if err != nil {
		return err
	}
	output, err := classes(g)
	if err != nil {
		return err
	}
	loss, target, err := g.AddLoss(grad.CrossEntropy, output.Name)
	if err != nil {
		return err
	}
	var wrt []string
	var of [][]int // observation to the places of its gradients
	for _, o := range list {
		var places []int
		for _, s := range o.Sites {
			if i.sites[s].Status != rewrite.Candidate {
				continue
			}
			name := i.sites[s].Output
			if v := g.Value(name); v == nil || v.Type != onnx.Float {
				return fmt.Errorf("%q is no float32 value of the main graph", name)
			}
			places, wrt = append(places, len(wrt)), append(wrt, name)
		}
		of = append(of, places)
	}
	assemble := func(g *grad.Graph, segments []grad.Segment) (*onnx.Model, int64, error) {
		gradients, err := g.Backward(loss, wrt, segments)
		if err != nil {
			return nil, 0, err
		}
		i.noise = g.AddInput("noise", output.Type, output.Shape...)
		values := append(slices.Clone(gradients), output)
		for _, o := range list {
			values = append(values, g.Value(o.Activation))
		}
		m := g.Model(values...)
		i.draw(m, g.Logits(output), target)
		names := make([][]string, len(list))
		for n, places := range of {
			for _, p := range places {
				names[n] = append(names[n], gradients[p].Name)
			}
		}
		if i.gradients, err = rewrite.ObserveGradients(m, list, names); err != nil {
			return nil, 0, err
		}
		if err := m.Scopes()[0].Sort(); err != nil {
			return nil, 0, err
		}
		return m, g.PeakOf(m) * int64(i.lanes), nil
	}
	m, need, err := assemble(g.Clone(), nil)
	if err != nil {
		return err
	}
	first := i.every == 0
	if free := i.free(); free > 0 {
		free = free / 8 * 7 // a runtime takes more than adds up
		need += i.held(list, first)
		if need > free {
			i.again = true
			if m, need, err = assemble(g.Clone(), g.Segments(wrt, loss.Name)); err != nil {
				return err
			}
			need += i.held(list, first)
		}
		if need > free && first { // other samples that are larger are tried all the same
			return fmt.Errorf("%w; shorter samples take less", noRoom(need, free))
		}
	}
	i.reads = nil
	for _, in := range m.Graph.Inputs {
		i.reads = append(i.reads, in.Name)
	}
	i.session, err = i.load(m, false)
	return err
}

// held is about how many bytes a calibration has yet to take besides the activations of a sample: for the weights in float32, at first of two sessions,
// and at first the sums.
func (i *importance) held(list []rewrite.Observation, first bool) int64 {
	bytes := floatBytes(i.model, i.mapped)
	if !first {
		return bytes
	}
	bytes *= 2
	for _, o := range slices.Concat(list, i.gradients) {
		if o.Full {
			bytes += 8 * int64(o.Columns) * int64(o.Columns+1) / 2
		}
	}
	return bytes
}

func noRoom(need, free int64) error {
	return fmt.Errorf("it would take %s of memory, and there is room for %s", Size(need), Size(free))
}

// floatBytes is what a session takes for the weights of m in float32, without tables that it maps, as files of which it needs no more than some rows.
func floatBytes(m *onnx.Model, mapped bool) (bytes int64) {
	index := onnx.NewIndex(m)
	for ref := range m.Tensors() {
		n, err := ref.Tensor.NumElements()
		if err != nil || !ref.Tensor.DataType.IsFloat() {
			continue
		}
		if mapped && ref.Role == onnx.RoleInitializer && ref.Scope.Graph == m.Graph {
			v := index.Lookup(index.Scopes[0], ref.Tensor.Name)
			if v != nil && !slices.ContainsFunc(v.Uses, func(u onnx.Use) bool { return u.Node == nil || u.Node.OpType != "Gather" || u.Input != 0 }) {
				continue
			}
		}
		bytes += 4 * n
	}
	return bytes
}

// classes returns the output whose last axis is taken for classes: the first of float32 with two or more of them.
func classes(g *grad.Graph) (*grad.Value, error) {
	for _, name := range g.Outputs() {
		if v := g.Value(name); v != nil && v.Type == onnx.Float && len(v.Shape) > 0 && v.Shape[len(v.Shape)-1] > 1 {
			return v, nil
		}
	}
	return nil, errors.New("no output of float32 has two or more columns")
}

// draw lets m compute the target, one-hot: the largest of logits and Gumbel noise is a draw from their softmax.
func (i *importance) draw(m *onnx.Model, logits, target *grad.Value) {
	m.Graph.Inputs = slices.DeleteFunc(m.Graph.Inputs, func(in *onnx.ValueInfo) bool { return in.Name == target.Name })
	m.Graph.Inputs = append(m.Graph.Inputs, onnx.NewValueInfo(i.noise.Name, onnx.Float, dimensions(i.noise.Shape)...))
	names := onnx.NewNames(m)
	add := func(op string, inputs []string, attrs ...*onnx.Attribute) string {
		out := names.Unique("draw." + op)
		m.Graph.Nodes = append(m.Graph.Nodes, onnx.NewNode(op, inputs, []string{out}, attrs...))
		return out
	}
	noisy := add("Add", []string{logits.Name, i.noise.Name})
	top := ""
	if opset, _ := m.Opset(""); opset >= 18 {
		last := onnx.NewTensor(names.Unique("draw.last"), []int64{1}, []int64{-1})
		m.Graph.Initializers = append(m.Graph.Initializers, last)
		top = add("ReduceMax", []string{noisy, last.Name})
	} else {
		top = add("ReduceMax", []string{noisy}, onnx.IntsAttr("axes", int64(len(logits.Shape)-1)))
	}
	hot := add("Not", []string{add("Less", []string{noisy, top})})
	m.Graph.Nodes = append(m.Graph.Nodes, onnx.NewNode("Cast", []string{hot}, []string{target.Name}, onnx.IntAttr("to", int64(onnx.Float))))
}

func dimensions(shape []int64) []any {
	var dims []any
	for _, d := range shape {
		dims = append(dims, d)
	}
	return dims
}

// loaderOf loads graphs whose files lie in dir.
func loaderOf(rt *ort.Runtime, dir string, o ort.SessionOptions) grad.Loader {
	return func(m *onnx.Model, literal bool) (grad.Session, error) {
		o := o
		if literal { // for one run: laying the weights out anew would take longer
			o.Config = maps.Clone(o.Config)
			o.Optimization, o.Config["session.disable_prepacking"] = ort.OptimizeDisabled, "1"
		}
		return loadGraph(rt, m, dir, o)
	}
}

// loadGraph loads a graph whose files lie in dir.
func loadGraph(rt *ort.Runtime, m *onnx.Model, dir string, o ort.SessionOptions) (grad.Session, error) {
	encoded, err := m.Marshal()
	if err != nil {
		return nil, err
	}
	s, err := rt.NewSessionFromBytes(encoded, dir, o)
	if err != nil {
		return nil, err // and no session: a nil *ort.Session would be one
	}
	return s, nil
}
