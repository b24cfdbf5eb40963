package quant_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/quant"
)

var errLost = errors.New("the device is lost")

// lost is a device that takes work and fails. Rows without feedback it codes as its codec does.
type lost struct {
	*lattice.Codec
	t    *testing.T
	rows *atomic.Int64
}

func (d lost) WithFeedback(f lattice.Feedback) (lattice.FeedbackCoder, error) {
	places := f.Groups * lattice.GroupSize
	if f.Groups != 8 || len(f.Lower) != places*places || len(f.Metrics) != f.Groups*2*lattice.GroupSize*lattice.GroupSize {
		d.t.Errorf("%d groups with a factor of %d numbers and metrics of %d", f.Groups, len(f.Lower), len(f.Metrics))
	}
	return d, nil
}

func (d lost) CodeRows(r lattice.FeedbackRows, weights, steps []float32) error {
	n, groups := len(steps), len(weights)/len(steps)/lattice.GroupSize
	if len(r.Errors) != len(weights) || len(r.Losses) != n || len(r.Gains) != n*groups || len(r.Indices) != n*groups*d.GroupIndices() {
		d.t.Errorf("%d rows of %d groups, and places for %d errors, %d losses, %d gains, %d indices", n, groups, len(r.Errors), len(r.Losses), len(r.Gains), len(r.Indices))
	}
	d.rows.Add(int64(n))
	return errLost
}

func (d lost) EncodeInMetric(g lattice.MetricGroups) error {
	n := len(g.Steps)
	if len(g.X) != n*lattice.GroupSize || len(g.Metric) != 2*lattice.GroupSize*lattice.GroupSize || len(g.Losses) != n {
		d.t.Errorf("%d rows: %d numbers, a metric of %d, %d losses", n, len(g.X), len(g.Metric), len(g.Losses))
	}
	d.rows.Add(int64(n))
	return errLost
}

// Who codes with feedback in the place of this package is given what it needs, and its failure is that of the coding: nothing is coded
// elsewhere in silence.
func TestDeviceFails(t *testing.T) {
	weight := gaussian(24, 64, 5)
	device := lost{preset(t, 3), t, new(atomic.Int64)}
	var _ lattice.FeedbackDevice = device
	for name, o := range map[string]quant.Options{
		"rows":   {Codec: device.Codec, Hessian: ar1(64, 0.7), Encoder: device},
		"groups": {Codec: device.Codec, Hessian: ar1(64, 0.7), Groups: device},
	} {
		device.rows.Store(0)
		if _, err := quant.Quantize(context.Background(), weight, o); !errors.Is(err, errLost) || device.rows.Load() == 0 {
			t.Errorf("%s: %d of them asked for, %v", name, device.rows.Load(), err)
		}
	}
	// Without feedback a device codes rows.
	if r, err := quant.Quantize(context.Background(), weight, quant.Options{Codec: device.Codec, Encoder: device}); err != nil || r.SQNR() < 10 {
		t.Errorf("rounding to nearest on the device: %v", err)
	}
}
