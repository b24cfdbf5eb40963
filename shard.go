package cosetq

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/rewrite"
)

// Shard is one of Count shares of a piece of work, numbered from 0. The zero value is all of it.
type Shard struct{ Index, Count int }

// AutoShard asks [ParseShard] to take the share from the variables of the engine that started the program.
const AutoShard = "auto"

// maxShards bounds the number of shares.
const maxShards = 1 << 16

// ParseShard reads "i/n", "auto" or "auto/n". Auto takes i, and unless it is given n, from the environment that getenv
// reads: Kubernetes Indexed Jobs (JOB_COMPLETION_INDEX, which come without n), Slurm arrays and steps, Open MPI, MPICH
// and other PMI launchers.
func ParseShard(text string, getenv func(string) string) (Shard, error) {
	first, count, divided := strings.Cut(text, "/")
	var s Shard
	var err error
	if divided {
		if s.Count, err = strconv.Atoi(count); err != nil || s.Count < 1 || s.Count > maxShards {
			return Shard{}, shardError(text, "%q is no number of shares", count)
		}
	}
	switch {
	case first == AutoShard:
		if s.Index, err = engineShard(getenv, &s.Count); err != nil {
			return Shard{}, shardError(text, "%v", err)
		}
	case !divided:
		return Shard{}, shardError(text, "it does not say of how many")
	default:
		if s.Index, err = strconv.Atoi(first); err != nil {
			return Shard{}, shardError(text, "%q is no number", first)
		}
	}
	if s.Index < 0 || s.Index >= s.Count {
		return Shard{}, shardError(text, "share %d of %d does not exist: they are numbered from 0", s.Index, s.Count)
	}
	return s, nil
}

func shardError(text, format string, args ...any) error {
	return usage(fmt.Errorf("--shard %q: %s", text, fmt.Sprintf(format, args...)), "give i/n with i from 0 to n-1, as in 0/4, or auto, or auto/n")
}

// engines are the variables of each engine: the share, how many there are, and the number of the first share.
var engines = []struct{ name, index, count, first string }{
	{"a Kubernetes Indexed Job", "JOB_COMPLETION_INDEX", "", ""},
	{"a Slurm array", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"},
	{"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", ""},
	{"a PMI launcher", "PMI_RANK", "PMI_SIZE", ""},
	{"a Slurm step", "SLURM_PROCID", "SLURM_NTASKS", ""},
}

// engineShard reads the share that the engine gave this process; count stays what it is unless it is 0.
func engineShard(getenv func(string) string, count *int) (int, error) {
	for _, e := range engines {
		if getenv(e.index) == "" {
			continue
		}
		number := func(name string) (int, error) {
			n, err := strconv.Atoi(getenv(name))
			if err != nil {
				return 0, fmt.Errorf("%s sets %s to %q, which is no number", e.name, name, getenv(name))
			}
			return n, nil
		}
		index, err := number(e.index)
		if err != nil {
			return 0, err
		}
		if e.first != "" && getenv(e.first) != "" {
			first, err := number(e.first)
			if err != nil {
				return 0, err
			}
			index -= first
		}
		if *count == 0 {
			if e.count == "" {
				return 0, fmt.Errorf("%s does not say how many shares there are: give auto/n", e.name)
			}
			if *count, err = number(e.count); err != nil {
				return 0, err
			}
		}
		return index, nil
	}
	var names []string
	for _, e := range engines {
		names = append(names, e.index)
	}
	return 0, fmt.Errorf("none of %s is set", strings.Join(names, ", "))
}

// share returns the weights of this share, even in their sizes.
func (s Shard) share(weights []*rewrite.Weight) []numbered {
	all := make([]numbered, len(weights))
	for i, w := range weights {
		all[i] = numbered{w, i}
	}
	sizes := make([]int64, len(all))
	for i, w := range all {
		n, k := w.Dims()
		sizes[i] = int64(n) * int64(k)
	}
	var mine []numbered
	for i, yes := range s.divide(sizes) {
		if yes {
			mine = append(mine, all[i])
		}
	}
	return mine
}

// divide tells which of several pieces of work of the given sizes are of this share: the largest first, each goes to the share
// that has least. Every process comes to the same division.
func (s Shard) divide(sizes []int64) []bool {
	mine := make([]bool, len(sizes))
	order := make([]int, len(sizes))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(sizes[b], sizes[a]) })
	load := make([]int64, max(s.Count, 1))
	for _, i := range order {
		least := 0
		for j, l := range load {
			if l < load[least] {
				least = j
			}
		}
		load[least] += sizes[i]
		mine[i] = least == s.Index
	}
	return mine
}

// String gives "i/n", and "" for all of the work.
func (s Shard) String() string {
	if s.Count == 0 {
		return ""
	}
	return fmt.Sprintf("%d/%d", s.Index, s.Count)
}

// observations tells which observations are of this share, by the moments that each sums up.
func (s Shard) observations(all []rewrite.Observation) []bool {
	sizes := make([]int64, len(all))
	for i, o := range all {
		if sizes[i] = int64(o.Columns); o.Full {
			sizes[i] *= int64(o.Columns)
		}
	}
	return s.divide(sizes)
}

// describeShare completes the report of a share: only its own layers are listed.
func (r *QuantizeReport) describeShare(m *onnx.Model, s Shard, sites []rewrite.Site, results map[*rewrite.Weight]*codedWeight) error {
	if err := m.Changed(); err != nil {
		return err
	}
	r.Shard = s.String()
	var mine []rewrite.Site
	for i := range sites {
		if results[sites[i].Weight] != nil {
			mine = append(mine, sites[i])
		}
	}
	var bytes, weights int64
	for _, w := range results {
		if w.matrix != nil {
			bytes += w.matrix.Bytes()
			weights += int64(w.matrix.N) * int64(w.matrix.K)
		}
	}
	if weights > 0 {
		r.BitsPerWeight = 8 * float64(bytes) / float64(weights)
	}
	r.Bytes = bytes
	r.describe(mine, results)
	_, r.Coverage = rewrite.Coverage(sites)
	return nil
}
