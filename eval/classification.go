package eval

import (
	"fmt"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/tensor"
)

// Classification is the share of samples whose largest output is at their label.
type Classification struct {
	Top1    float64 `json:"top1"` // Correct / Count, between 0 and 1
	Correct int     `json:"correct"`
	Count   int     `json:"count"`
}

type classification struct {
	models []Model
	output string
	scores []Classification
}

func newClassification(models []Model, o Options) *classification {
	return &classification{models: models, output: o.Output, scores: make([]Classification, len(models))}
}

func (c *classification) add(model int, b *batch, outputs map[string]*tensor.Tensor) error {
	m := &c.models[model]
	name, t, err := m.output(c.output, outputs)
	if err != nil {
		return err
	}
	classes := t.Count() / int64(b.size)
	if classes*int64(b.size) != t.Count() || classes < 2 {
		return unfit("%s: output %s has shape %s for %d samples; classification needs one number per class and sample",
			m.Path, name, tensor.FormatShape(t.Shape), b.size)
	}
	return m.rows(b, name, t, classes, func(row int64, values []float64) error {
		label := b.Samples[row].Label
		if label < 0 {
			return &calib.RecipeError{Msg: "has no labels, and classification needs them; add labels to the recipe, or use --task agreement"}
		}
		if int64(label) >= classes {
			return &calib.RecipeError{Msg: fmt.Sprintf("sample %d has label %d, but output %s of %s knows %d classes, 0 to %d; the labels belong to another model",
				b.First+int(row), label, name, m.Path, classes, classes-1)}
		}
		c.scores[model].Count++
		if tensor.ArgMax(values) == label {
			c.scores[model].Correct++
		}
		return nil
	})
}

func (c *classification) metrics(model int) (any, error) {
	s := c.scores[model]
	if s.Count > 0 {
		s.Top1 = float64(s.Correct) / float64(s.Count)
	}
	return s, nil
}
