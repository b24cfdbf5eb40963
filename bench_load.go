package cosetq

import (
	"context"

	"github.com/cosetq/cosetq/bench"
)

// LoadRow is one model of a [BenchReport] with many callers. Times are milliseconds of one run.
type LoadRow struct {
	Name       string  `json:"name"`
	Callers    int     `json:"callers"`
	Runs       int     `json:"runs"`
	Seconds    float64 `json:"seconds"`
	PerSecond  float64 `json:"items_per_second"`
	Median     float64 `json:"median_ms"`
	P95        float64 `json:"p95_ms"`
	P99        float64 `json:"p99_ms"`
	Slowest    float64 `json:"slowest_ms"`
	Different  int     `json:"different_results"` // runs whose outputs were not those of the first, to the bit
	MemoryWarm int64   `json:"memory_warm_bytes"` // of the process, after warm-up
	MemoryEnd  int64   `json:"memory_end_bytes"`
	MemoryPeak int64   `json:"memory_peak_bytes"`
}

// underLoad runs each model from many goroutines, one model after the other.
func (r *BenchReport) underLoad(ctx context.Context, models []bench.Model, o BenchOptions) error {
	for _, m := range models {
		var memory func() int64
		if residentBytes() > 0 {
			memory = residentBytes
		}
		l, err := bench.RunLoad(ctx, m, bench.LoadOptions{Callers: o.Concurrency, Duration: o.Budget, Memory: memory})
		if err != nil {
			return err
		}
		r.Load = append(r.Load, LoadRow{
			Name: m.Name, Callers: l.Callers, Runs: l.Runs, Seconds: l.Seconds, PerSecond: float64(r.Items) * float64(l.Runs) / l.Seconds,
			Median: ms(l.Median), P95: ms(l.P95), P99: ms(l.P99), Slowest: ms(l.Slowest), Different: l.Different,
			MemoryWarm: l.MemoryWarm, MemoryEnd: l.MemoryEnd, MemoryPeak: l.MemoryPeak,
		})
	}
	return nil
}
