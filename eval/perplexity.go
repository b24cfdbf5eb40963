package eval

import (
	"fmt"
	"math"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/tensor"
)

// Perplexity says how well a model predicts each next token.
type Perplexity struct {
	NLL          float64 `json:"nll"`            // mean negative log-likelihood of a token, in nats
	Perplexity   Number  `json:"perplexity"`     // exp(NLL)
	BitsPerToken float64 `json:"bits_per_token"` // NLL / ln 2; bits per byte when tokens are bytes
	Tokens       int     `json:"tokens"`         // predicted
}

type perplexity struct {
	models []Model
	output string
	nll    []float64 // sums, in nats
	tokens []int
}

func newPerplexity(models []Model, o Options) *perplexity {
	return &perplexity{models: models, output: o.Output, nll: make([]float64, len(models)), tokens: make([]int, len(models))}
}

func (p *perplexity) add(model int, b *batch, outputs map[string]*tensor.Tensor) error {
	m := &p.models[model]
	name, t, err := m.output(p.output, outputs)
	if err != nil {
		return err
	}
	seq := int64(len(b.Samples[0].Targets))
	if seq == 0 {
		return &calib.RecipeError{Msg: "holds no tokens, and perplexity needs them; use a recipe of kind bytes or tokens, or another --task"}
	}
	if len(t.Shape) != 3 || t.Shape[0] != int64(b.size) || t.Shape[1] != seq || t.Shape[2] < 1 {
		return unfit("%s: output %s has shape %s; perplexity needs logits [%d,%d,vocabulary], a row for each token",
			m.Path, name, tensor.FormatShape(t.Shape), b.size, seq)
	}
	vocabulary := t.Shape[2]
	return m.rows(b, name, t, vocabulary, func(row int64, logits []float64) error {
		target := b.Samples[row/seq].Targets[row%seq]
		if int64(target) >= vocabulary {
			return &calib.RecipeError{Msg: fmt.Sprintf("sample %d holds token %d, but output %s of %s knows tokens 0 to %d; the data was made with another tokenizer",
				b.First+int(row/seq), target, name, m.Path, vocabulary-1)}
		}
		p.nll[model] += logSumExp(logits) - logits[target]
		p.tokens[model]++
		return nil
	})
}

func (p *perplexity) metrics(model int) (any, error) {
	s := Perplexity{Tokens: p.tokens[model]}
	if s.Tokens > 0 {
		s.NLL = p.nll[model] / float64(s.Tokens)
	}
	s.Perplexity = Number(math.Exp(s.NLL))
	s.BitsPerToken = s.NLL / math.Ln2
	return s, nil
}
