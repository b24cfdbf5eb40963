package finetune

import (
	"fmt"

	"github.com/cosetq/cosetq/finetune/grad"
)

// Memory says what a training holds, in bytes.
type Memory struct {
	Weights     int64 `json:"weights"`     // latent weights, their values and gradients, the optimizer's moments
	Activations int64 `json:"activations"` // of a step, at their most, as the order of its nodes has them
	Recomputed  int   `json:"recomputed"`  // blocks whose activations are computed again; 0 when all are kept
}

// Total is all of it.
func (m Memory) Total() int64 { return m.Weights + m.Activations }

// MemoryError says that a training does not fit into the memory it was given.
type MemoryError struct {
	Need Memory
	Have int64
}

func (e *MemoryError) Error() string {
	const mb = 1e6
	return fmt.Sprintf("the training needs %.1f MB (%.1f for weights, gradients and moments, %.1f for activations, computed again in %d blocks), and may take %g",
		float64(e.Need.Total())/mb, float64(e.Need.Weights)/mb, float64(e.Need.Activations)/mb, e.Need.Recomputed, float64(e.Have)/mb)
}

// bytesPerWeight is what a trained weight takes: latent, value, two moments and a gradient, in float32.
const bytesPerWeight = 5 * 4

// backward appends the gradients and returns the loss and them. Activations are kept where memory allows, and otherwise computed
// again block by block.
func (t *trainer) backward(g *grad.Graph, loss *grad.Value, wrt []string) (plan *grad.Graph, outputs []*grad.Value, err error) {
	for _, l := range t.latents {
		if l.Frozen {
			t.memory.Weights += 4 * int64(len(l.w))
		} else {
			t.memory.Weights += bytesPerWeight * int64(len(l.w))
		}
	}
	try := func(segments []grad.Segment) error {
		plan = g.Clone()
		gradients, err := plan.Backward(loss, wrt, segments)
		if err != nil {
			return err
		}
		outputs = append([]*grad.Value{loss}, gradients...)
		t.memory.Activations, t.memory.Recomputed = plan.Peak(outputs...), max(len(segments)-1, 0)
		return nil
	}
	if err := try(nil); err != nil {
		return nil, nil, err
	}
	if t.opt.MaxMemory > 0 && t.memory.Total() > t.opt.MaxMemory {
		if err := try(g.Segments(wrt, loss.Name)); err != nil {
			return nil, nil, err
		}
		if t.memory.Total() > t.opt.MaxMemory {
			return nil, nil, &MemoryError{t.memory, t.opt.MaxMemory}
		}
	}
	return plan, outputs, nil
}
