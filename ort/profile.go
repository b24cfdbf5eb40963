//go:build cgo && linux

package ort

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/cosetq/cosetq/tensor"
)

// Placement loads a model, runs it once, and tells which nodes ran as which operator on which provider, in the order of
// their first run. It shows whether quantized nodes ran as the native op or as their portable function bodies. Nodes that ran on
// the GPU together, as one node of ONNX Runtime, are listed singly, and after them those it left to the CPU with the reason.
func (r *Runtime) Placement(ctx context.Context, path string, o SessionOptions, inputs map[string]*tensor.Tensor) ([]NodeRun, error) {
	dir, err := os.MkdirTemp("", "cosetq-profile-")
	if err != nil {
		return nil, fmt.Errorf("placement of %s: %w", path, err)
	}
	defer os.RemoveAll(dir)
	o.ProfilePrefix = filepath.Join(dir, "run")
	s, err := r.NewSession(path, o)
	if err != nil {
		return nil, err
	}
	var seen []NodeRun
	if o.Provider != "" {
		p, err := OpenProvider(o.Provider)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		seen = p.placement()
	}
	_, err = s.Run(ctx, inputs)
	if err := errors.Join(err, s.Close()); err != nil {
		return nil, err
	}
	found, err := filepath.Glob(o.ProfilePrefix + "*.json")
	if err != nil || len(found) != 1 {
		return nil, fmt.Errorf("placement of %s: ONNX Runtime wrote %d profiles instead of one", path, len(found))
	}
	data, err := os.ReadFile(found[0])
	if err != nil {
		return nil, fmt.Errorf("placement of %s: %w", path, err)
	}
	runs, err := parseProfile(data)
	if err != nil || o.Provider == "" {
		return runs, err
	}
	return unfuse(runs, seen), nil
}

// unfuse puts the nodes that the provider took in the place of those they were fused into, and adds to the others why the
// provider left them, where they still go by the name it saw. Nodes without one, which ONNX Runtime names as it runs them, have
// the reason of the first of their operator.
func unfuse(runs, seen []NodeRun) []NodeRun {
	var all []NodeRun
	reasons, nameless := map[string]string{}, map[string]string{}
	for _, n := range seen {
		switch {
		case n.Provider == ProviderName:
			all = append(all, n)
		case n.Node != "":
			reasons[n.Node] = n.Reason
		case nameless[n.Op] == "":
			nameless[n.Op] = n.Reason
		}
	}
	for _, n := range runs {
		if n.Provider == ProviderName {
			continue
		}
		var named bool
		if n.Reason, named = reasons[n.Node]; !named {
			n.Reason = nameless[n.Op]
		}
		all = append(all, n)
	}
	return all
}

// unquotedName finds the name of an event, in which ONNX Runtime leaves quotes, backslashes and line breaks as they are.
var unquotedName = regexp.MustCompile(`(?s)("name" :)"(.*?)"(,"args" : \{)`)

// parseProfile reads the kernel events of a profile in Chrome's trace format.
func parseProfile(data []byte) ([]NodeRun, error) {
	var events []struct {
		Category     string `json:"cat"`
		Name         string `json:"name"`
		Microseconds int64  `json:"dur"`
		Args         struct {
			Op       string `json:"op_name"`
			Provider string `json:"provider"`
		} `json:"args"`
	}
	data = unquotedName.ReplaceAllFunc(data, func(b []byte) []byte {
		parts := unquotedName.FindSubmatch(b)
		quoted, _ := json.Marshal(string(parts[2])) // a string always can be
		return slices.Concat(parts[1], quoted, parts[3])
	})
	if err := json.Unmarshal(data, &events); err != nil {
		return nil, fmt.Errorf("profile of ONNX Runtime: %w", err)
	}
	var runs []NodeRun
	at := map[string]int{}
	for _, e := range events {
		node, isKernel := strings.CutSuffix(e.Name, "_kernel_time")
		if e.Category != "Node" || !isKernel {
			continue
		}
		key := node + "\x00" + e.Args.Op
		i, seen := at[key]
		if !seen {
			i = len(runs)
			at[key] = i
			runs = append(runs, NodeRun{Node: node, Op: e.Args.Op, Provider: e.Args.Provider})
		}
		runs[i].Calls++
		runs[i].Time += time.Duration(e.Microseconds) * time.Microsecond
	}
	return runs, nil
}
