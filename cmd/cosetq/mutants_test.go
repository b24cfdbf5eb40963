package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
)

// patience is the processor time that one command may take on a damaged model.
const patience = 10 * time.Second

// documented are the exit codes that a command may have on a damaged model.
var documented = map[string][]int{
	"inspect":  {exitOK, exitModel},
	"quantize": {exitOK, exitModel, exitNothing, exitResources},
	"run":      {exitOK, exitUsage, exitModel, exitResources},
}

// Damaged real models, float and quantized, through the whole program: nothing crashes, hangs or calls itself broken.
// COSETQ_REQUIRE=slow makes it 510 of them.
func TestMutants(t *testing.T) {
	count := 16
	if testenv.Slow() {
		count = 510
	}
	sources := mutantSources(t)
	env := append(os.Environ(), testenv.EnvORT+"="+testenv.ORT(t), testenv.EnvOps+"="+testenv.Ops(t))
	codes := map[string]map[int]int{}
	var slowest time.Duration
	for i := range count {
		source := sources[i%len(sources)]
		rng := rand.New(rand.NewPCG(uint64(i), 4711))
		dir := t.TempDir()
		model, what := mutate(t, rng, source, dir)
		commands := [][]string{
			{"inspect", model}, {"run", model, "--data", "random:1", "--threads", "1"}, {"quantize", model, "-o", filepath.Join(dir, "out.onnx"), "--bits", "2"},
		}
		for _, args := range commands {
			cmd := exec.Command("cosetq", args...)
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr, cmd.Env = &out, &out, env
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			stop := time.AfterFunc(20*patience, func() { _ = cmd.Process.Kill() }) // of other programs' time as well
			err := cmd.Wait()
			stop.Stop()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			code, used := cmd.ProcessState.ExitCode(), cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()
			slowest = max(slowest, used)
			if codes[args[0]] == nil {
				codes[args[0]] = map[int]int{}
			}
			codes[args[0]][code]++
			broken := strings.Contains(out.String(), "panic:") || strings.Contains(out.String(), "goroutine ")
			if !slices.Contains(documented[args[0]], code) || broken || used > patience {
				kept := filepath.Join(os.TempDir(), fmt.Sprintf("mutant-%d.onnx", i))
				b, _ := os.ReadFile(model)
				_ = os.WriteFile(kept, b, 0o666)
				t.Errorf("mutant %d of %s (%s, kept as %s): %s: exit code %d (%v) after %v: %s", i, filepath.Base(source), what, kept, args[0], code, err, used, firstLines(out.String()))
			}
		}
		_ = os.RemoveAll(dir)
	}
	for _, command := range slices.Sorted(maps.Keys(codes)) {
		t.Logf("%s: exit codes %v", command, codes[command])
	}
	t.Logf("%d mutants, at most %v of processor time", count, slowest)
}

func firstLines(s string) string {
	if len(s) > 600 {
		s = s[:600] + " …"
	}
	return s
}

// mutantSources are the smaller real models and their quantized forms.
func mutantSources(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	var sources []string
	for _, name := range slices.Sorted(maps.Keys(realModels)) {
		path := testenv.Data(t, "models/"+name+".onnx")
		if info, err := os.Stat(path); err != nil || info.Size() > 4<<20 {
			continue
		}
		sources = append(sources, path)
		if realModels[name].quantized == 0 {
			continue
		}
		quantized := filepath.Join(dir, name+".q.onnx")
		if cmd, out := cosetqIn(dir, "quantize", path, "-o", quantized); cmd.Run() != nil {
			t.Fatalf("%s: %s", name, out)
		}
		sources = append(sources, quantized)
	}
	return sources
}

// mutate writes a damaged form of the model to dir, its data file beside it, and says what it did.
func mutate(t *testing.T, rng *rand.Rand, source, dir string) (path, what string) {
	t.Helper()
	path = filepath.Join(dir, filepath.Base(source))
	data := path + ".data"
	if b, err := os.ReadFile(source + ".data"); err == nil {
		switch rng.IntN(8) {
		case 0:
			b = b[:rng.IntN(len(b))]
			what = "data cut, "
		case 1:
			for range 20 {
				b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
			}
			what = "data bits flipped, "
		}
		if err := os.WriteFile(data, b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	good, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	bad := good
	if rng.IntN(4) == 0 {
		bad, what = damage(rng, good), what+"bytes"
	} else {
		m, err := onnx.Parse(good)
		if err != nil {
			t.Fatal(err)
		}
		for range max(1, rng.IntN(4)-1) {
			what += mutateModel(rng, m) + ", "
		}
		if bad, err = m.Marshal(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, bad, 0o666); err != nil {
		t.Fatal(err)
	}
	return path, what
}

// numberFrom is a size or an attribute as a hostile file has it.
func numberFrom(rng *rand.Rand) int64 {
	return []int64{0, 1, -1, 7, 1 << 16, 1 << 31, 1<<31 - 1, 1 << 40, 1 << 62, -1 << 63, 1<<63 - 1, rng.Int64N(4096)}[rng.IntN(12)]
}

// mutateModel damages the meaning of a model and leaves its form intact.
func mutateModel(rng *rand.Rand, m *onnx.Model) string {
	g := m.Graph
	node := g.Nodes[rng.IntN(len(g.Nodes))]
	names := []string{"", "no such value", node.Outputs[0]}
	for range 3 {
		other := g.Nodes[rng.IntN(len(g.Nodes))]
		names = append(names, other.Outputs[0])
		if len(other.Inputs) > 0 {
			names = append(names, other.Inputs[rng.IntN(len(other.Inputs))])
		}
	}
	name := names[rng.IntN(len(names))]
	switch rng.IntN(16) {
	case 12, 13, 14, 15:
		if len(g.Initializers) > 0 {
			c := g.Initializers[rng.IntN(len(g.Initializers))]
			c.RawData = slices.Clone(c.RawData)
			for range len(c.RawData)/100 + 1 {
				if len(c.RawData) > 0 {
					c.RawData[rng.IntN(len(c.RawData))] = byte(rng.Uint32())
				}
			}
			return fmt.Sprintf("numbers of %s", c.Name)
		}
	case 0, 1:
		if len(g.Initializers) > 0 {
			c := g.Initializers[rng.IntN(len(g.Initializers))]
			if len(c.Dims) > 0 && rng.IntN(3) > 0 {
				c.Dims = slices.Clone(c.Dims)
				c.Dims[rng.IntN(len(c.Dims))] = numberFrom(rng)
				return fmt.Sprintf("dims of %s", c.Name)
			}
			c.Dims = append(slices.Clone(c.Dims), numberFrom(rng))
			return fmt.Sprintf("rank of %s", c.Name)
		}
	case 2:
		if len(g.Initializers) > 0 {
			c := g.Initializers[rng.IntN(len(g.Initializers))]
			c.DataType = onnx.DataType(rng.IntN(30))
			return fmt.Sprintf("type of %s", c.Name)
		}
	case 3:
		if len(g.Initializers) > 0 {
			c := g.Initializers[rng.IntN(len(g.Initializers))]
			c.DataLocation = onnx.LocationExternal
			c.ExternalData = []*onnx.Property{{Key: "location", Value: []string{"../x", "/etc/passwd", "a\x00b", ".", "no"}[rng.IntN(5)]}, {Key: "offset", Value: fmt.Sprint(numberFrom(rng))}}
			return fmt.Sprintf("place of %s", c.Name)
		}
	case 4, 5:
		if len(node.Inputs) > 0 {
			node.Inputs = slices.Clone(node.Inputs)
			node.Inputs[rng.IntN(len(node.Inputs))] = name
			return fmt.Sprintf("an input of %s", node.Name)
		}
	case 6:
		node.Inputs = append(slices.Clone(node.Inputs), name)
		return fmt.Sprintf("one more input of %s", node.Name)
	case 7:
		node.Outputs = []string{name}
		return fmt.Sprintf("the output of %s", node.Name)
	case 8:
		node.OpType = []string{"MatMul", "Gemm", "HNLQLinear", "If", "Reshape", "Transpose", "Nonsense"}[rng.IntN(7)]
		return fmt.Sprintf("the operator of %s", node.Name)
	case 9, 10:
		if len(node.Attributes) > 0 {
			a := node.Attributes[rng.IntN(len(node.Attributes))]
			switch {
			case len(a.Ints) > 0:
				a.Ints = []int64{numberFrom(rng), numberFrom(rng)}
			case a.T != nil && len(a.T.Dims) > 0:
				a.T.Dims = []int64{numberFrom(rng)}
			default:
				a.I, a.F = numberFrom(rng), float32(rng.NormFloat64()*1e30)
			}
			return fmt.Sprintf("attribute %s of %s", a.Name, node.Name)
		}
	case 11:
		if rng.IntN(2) == 0 {
			m.SetOpset("", numberFrom(rng))
			return "the opset"
		}
		m.IRVersion = numberFrom(rng)
		return "the IR version"
	}
	g.Nodes = slices.Delete(slices.Clone(g.Nodes), 0, 1+rng.IntN(2))
	if len(g.Nodes) == 0 {
		g.Nodes = []*onnx.Node{node}
	}
	return "nodes removed"
}
