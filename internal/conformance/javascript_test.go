package conformance

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/internal/browser"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/models"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/tensor"
)

// deployed writes a model as `cosetq quantize` does, with its weights in a file beside it, and returns the logits of ones.
func deployed(t *testing.T) (model string, want []float32) {
	t.Helper()
	files, err := models.WriteQuickstart(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	model = filepath.Join(t.TempDir(), "model.q.onnx")
	if _, err := cosetq.Quantize(context.Background(), files.Model, cosetq.QuantizeOptions{Output: model}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(model + ".data"); err != nil {
		t.Fatal(err)
	}
	s, err := openRuntime(t).NewSession(model, ort.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ones := make([]float32, digitColumns)
	for i := range ones {
		ones[i] = 1
	}
	out, err := s.Run(context.Background(), map[string]*tensor.Tensor{s.Inputs()[0].Name: tensor.Of(ones, 1, digitColumns)})
	if err != nil {
		t.Fatal(err)
	}
	if want, err = tensor.View[float32](out[s.Outputs()[0].Name]); err != nil {
		t.Fatal(err)
	}
	return model, want
}

// printed reads the numbers of a line as the JavaScript snippets print them: NAME DIMS VALUES.
func printed(t *testing.T, line string) []float32 {
	t.Helper()
	fields := strings.Fields(line)
	if len(fields) < 3 || fields[1] != "1x10" {
		t.Fatalf("printed %q, want a name, 1x10 and values", line)
	}
	var got []float32
	for _, f := range fields[2:] {
		v, err := strconv.ParseFloat(f, 32)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, float32(v))
	}
	return got
}

// The shipped Node snippet, in the onnxruntime-node package, gives the logits of the portable path.
func TestNodeSnippet(t *testing.T) {
	packages := testenv.Node(t)
	model, want := deployed(t)
	script := snippet(t, "Node", "run.mjs")
	if err := os.Symlink(filepath.Join(packages, "node_modules"), filepath.Join(filepath.Dir(script), "node_modules")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", script, model)
	cmd.Env = append(os.Environ(), "ORT_DISABLE_TELEMETRY=1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if d := difference(want, printed(t, string(out))); !(d <= otherKernel) {
		t.Errorf("logits differ by %.2g:\n%s", d, out)
	}
}

// The shipped page, with the onnxruntime-web package in Chromium, gives the logits of the portable path.
func TestWebSnippet(t *testing.T) {
	packages := testenv.Node(t)
	testenv.Chromium(t)
	model, want := deployed(t)
	page := snippet(t, "Web", "run.html")
	mux := http.NewServeMux()
	mux.Handle("/ort/", http.StripPrefix("/ort/", http.FileServer(http.Dir(filepath.Join(packages, "node_modules", "onnxruntime-web", "dist")))))
	mux.Handle("/", http.FileServer(http.Dir(filepath.Dir(model))))
	mux.HandleFunc("/run.html", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, page) })
	mux.HandleFunc("/favicon.ico", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	server := httptest.NewServer(mux)
	defer server.Close()

	p := browser.Open(t, server.URL+"/run.html?model=model.q.onnx", 1280, false)
	var line string
	p.Eval(t, "window.finished", &line)
	if d := difference(want, printed(t, line)); !(d <= otherKernel) {
		t.Errorf("logits differ by %.2g:\n%s", d, line)
	}
	if problems := p.Problems(); len(problems) > 0 {
		t.Errorf("the console says %q", problems)
	}
}
