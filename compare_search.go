package cosetq

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"regexp"
	"slices"
	"sort"
	"strings"

	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
)

// trial measures the outputs of the float model with the given layers of the other one; see hybrid.
func (c *comparison) trial(ctx context.Context, reference *running, pairs []rewrite.Pair, prepare func(m *onnx.Model) error) (eval.Decibels, error) {
	h, err := c.hybrid(ctx, pairs, prepare)
	if err != nil {
		return 0, err
	}
	defer h.session.Close()
	a, err := c.outputs(ctx, reference, h, "hybrid")
	return a.SQNR, err
}

// plain loads the float model as it is.
func (c *comparison) plain(ctx context.Context) (*running, error) {
	m, err := onnx.Open(c.float)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	return c.load(ctx, m, "plain.onnx")
}

// bisect finds the first layer, in the order of the model, with which the outputs miss the tolerance when all layers up to it
// are quantized. It counts on the outputs getting worse with every layer, which holds well enough for a search.
func (c *comparison) bisect(ctx context.Context, r *CompareReport) (*BisectReport, error) {
	b := &BisectReport{Tolerance: c.options.MinSQNR, After: r.Output.SQNR}
	if float64(b.After) >= b.Tolerance {
		return b, nil
	}
	reference, err := c.plain(ctx)
	if err != nil {
		return nil, err
	}
	defer reference.session.Close()
	step := c.options.Progress.stage("bisecting", int64(bitLength(len(c.pairs))))
	seen := map[int]eval.Decibels{}
	first := sort.Search(len(c.pairs), func(i int) bool {
		if err != nil {
			return true
		}
		seen[i+1], err = c.trial(ctx, reference, c.pairs[:i+1], nil)
		b.Trials++
		step(1)
		return float64(seen[i+1]) < b.Tolerance
	})
	if err != nil {
		return nil, err
	}
	b.Broken = true
	if first == len(c.pairs) { // what breaks it is no layer that can be grafted
		return b, nil
	}
	b.First, b.Before, b.After = c.sites[c.pairs[first].Site].Name, seen[first], seen[first+1]
	if first == 0 {
		b.Before = eval.Decibels(math.Inf(1))
	}
	return b, nil
}

func bitLength(n int) (bits int) {
	for ; n > 0; n >>= 1 {
		bits++
	}
	return bits
}

// patternOf returns the pattern that matches a site and no other. Its name does not where that is also an initializer of another.
func patternOf(sites []rewrite.Site, site int) string {
	pattern := sites[site].Name
	if strings.ContainsAny(pattern, `*?[]\:`) {
		pattern = "re:^" + regexp.QuoteMeta(pattern) + "$"
	}
	if matched, err := rewrite.Select(sites, pattern); err != nil || len(matched) != 1 {
		return fmt.Sprintf("index:%d", sites[site].Index)
	}
	return pattern
}

// tryLayers measures what keeping each of the worst layers in float would gain, and what a finer codec would.
func (c *comparison) tryLayers(ctx context.Context, r *CompareReport) error {
	order := make([]int, len(r.Layers))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(r.Layers[a].Local, r.Layers[b].Local) })
	seen := map[int]bool{} // the worst stands for all that stay float with it
	order = slices.DeleteFunc(order, func(i int) bool {
		if seen[i] {
			return true
		}
		for _, k := range c.together(i) {
			seen[k] = true
		}
		return false
	})
	order = order[:min(c.options.Top, len(order))]
	if len(order) == 0 {
		return nil
	}
	reference, err := c.plain(ctx)
	if err != nil {
		return err
	}
	defer reference.session.Close()
	all, err := c.trial(ctx, reference, c.pairs, nil)
	if err != nil {
		return err
	}
	step := c.options.Progress.stage("trying layers as float", int64(len(order)))
	for _, i := range order {
		l, site, group := &r.Layers[i], c.site(i), c.together(i)
		t := LayerTrial{Node: l.Node, Exclude: patternOf(c.sites, c.pairs[i].Site)}
		var out []*rewrite.Site
		stored, coded := map[string]bool{}, map[*rewrite.Weight]bool{} // each once: nodes may share a weight, and its code where they multiply by it alike
		for _, k := range group {
			s := c.site(k)
			out = append(out, s)
			if k != i && s.Batch == "" { // of a batch one stands for all
				t.With = append(t.With, s.Name)
			}
			if s.Batch == "" && !stored[s.Initializer] || s.Batch != "" && !coded[s.Weight] {
				t.Bytes += r.Layers[k].FloatBytes
			}
			if !coded[s.Weight] {
				t.Bytes -= r.Layers[k].Bytes
			}
			stored[s.Initializer], coded[s.Weight] = true, true
		}
		sqnr, err := c.trial(ctx, reference, c.without(func(s *rewrite.Site) bool { return slices.Contains(out, s) }), nil)
		if err != nil {
			return err
		}
		t.SQNR, t.Gain = sqnr, gain(all, sqnr)
		if bits, codec := c.finer(i); codec != nil {
			others := c.without(func(s *rewrite.Site) bool { return s.Weight == site.Weight })
			sqnr, err := c.trial(ctx, reference, others, func(m *onnx.Model) error { return c.recode(ctx, m, i, codec) })
			if err != nil {
				return err
			}
			t.Finer = &FinerTrial{Layer: fmt.Sprintf("%s=%d", t.Exclude, bits), Bytes: quant.PlannedBytes(codec, l.N, l.K) - l.Bytes, SQNR: sqnr, Gain: gain(all, sqnr)}
		}
		r.Trials = append(r.Trials, t)
		step(1)
	}
	slices.SortStableFunc(r.Trials, func(a, b LayerTrial) int { return cmp.Compare(b.Gain, a.Gain) })
	return nil
}

// together lists the layers that stay float if one of them does: those of a batch of matrices, and those that need the same weight.
func (c *comparison) together(layer int) []int {
	group, member := []int{layer}, map[int]bool{layer: true}
	for i := 0; i < len(group); i++ {
		a := c.site(group[i])
		for k := range c.pairs {
			if b := c.site(k); !member[k] && (a.Initializer == b.Initializer || a.Batch != "" && a.Batch == b.Batch) {
				group, member[k] = append(group, k), true
			}
		}
	}
	slices.Sort(group)
	return group
}

// site is a layer's node in the float model.
func (c *comparison) site(layer int) *rewrite.Site { return &c.sites[c.pairs[layer].Site] }

// without returns the layers whose nodes are not left out.
func (c *comparison) without(out func(*rewrite.Site) bool) []rewrite.Pair {
	return slices.DeleteFunc(slices.Clone(c.pairs), func(p rewrite.Pair) bool { return out(&c.sites[p.Site]) })
}

// gain is what a trial gained: 0 where neither form has any error, whose ratios are infinite.
func gain(before, after eval.Decibels) eval.Decibels {
	if before == after {
		return 0
	}
	return after - before
}

// finer returns the next preset above the codec that a layer has; none where there is no such preset or no codec.
func (c *comparison) finer(layer int) (bits int, codec *lattice.Codec) {
	s := c.site(layer)
	has, err := lattice.ParseCodec(c.pairs[layer].Codec())
	if err != nil || s.Status != rewrite.Candidate {
		return 0, nil
	}
	for _, bits := range []int{2, 3, 4} {
		codec, err := lattice.Preset(bits)
		if err == nil && quant.PlannedBytes(codec, s.N, s.K) > quant.PlannedBytes(has, s.N, s.K) {
			return bits, codec
		}
	}
	return 0, nil
}

// recode puts weights as a codec decodes them into a layer of the float model, and into those that multiply by the same.
func (c *comparison) recode(ctx context.Context, m *onnx.Model, layer int, codec *lattice.Codec) error {
	sites, err := rewrite.FindSites(m, rewrite.Options{})
	if err != nil {
		return err
	}
	s := sites[c.pairs[layer].Site]
	res, err := quant.Quantize(ctx, s.Weight, coding(codec))
	if err == nil {
		var replacements []rewrite.Replacement
		for k := range c.pairs {
			if c.site(k).Weight == c.site(layer).Weight {
				replacements = append(replacements, rewrite.Replacement{Site: sites[c.pairs[k].Site], Matrix: res.Matrix})
			}
		}
		_, err = rewrite.Apply(m, replacements, Version())
	}
	if err == nil {
		_, err = rewrite.Export(m, rewrite.ExportOptions{Format: rewrite.FP32})
	}
	if err != nil && ctx.Err() == nil {
		return fail(BadModel, err, "")
	}
	return err
}
