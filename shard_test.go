package cosetq

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestParseShard(t *testing.T) {
	for _, tt := range []struct {
		text string
		env  map[string]string
		want Shard
		err  string
	}{
		{text: "0/1", want: Shard{0, 1}},
		{text: "3/4", want: Shard{3, 4}},
		{text: "4/4", err: "numbered from 0"},
		{text: "-1/4", err: "numbered from 0"},
		{text: "1/0", err: "number of shares"},
		{text: "1/99999999", err: "number of shares"},
		{text: "2", err: "of how many"},
		{text: "x/4", err: "no number"},
		{text: "auto", err: "JOB_COMPLETION_INDEX"},
		{text: "auto/8", env: map[string]string{"JOB_COMPLETION_INDEX": "7"}, want: Shard{7, 8}},
		{text: "auto", env: map[string]string{"JOB_COMPLETION_INDEX": "7"}, err: "auto/n"},
		{text: "auto", env: map[string]string{"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "0"}, want: Shard{3, 4}},
		{text: "auto", env: map[string]string{"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "1"}, want: Shard{2, 4}},
		{text: "auto", env: map[string]string{"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "1"}, err: "does not exist"},
		{text: "auto", env: map[string]string{"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, want: Shard{1, 2}},
		// mpirun inside a Slurm allocation: the rank counts, not the step that started it.
		{text: "auto", env: map[string]string{"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "3"}, want: Shard{2, 3}},
		{text: "auto", env: map[string]string{"PMI_RANK": "0", "PMI_SIZE": "3"}, want: Shard{0, 3}},
		{text: "auto", env: map[string]string{"PMI_RANK": "zero", "PMI_SIZE": "3"}, err: "PMI_RANK"},
	} {
		got, err := ParseShard(tt.text, func(name string) string { return tt.env[name] })
		switch {
		case tt.err == "" && (err != nil || got != tt.want):
			t.Errorf("%s %v: %v, %v, want %v", tt.text, tt.env, got, err, tt.want)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error()+hintOf(err), tt.err)):
			t.Errorf("%s %v: %v, %v, want an error about %q", tt.text, tt.env, got, err, tt.err)
		}
	}
}

func hintOf(err error) string {
	_, hint := Classify(err)
	return hint
}

// Every option either changes the codes, and is then among the settings of the journal, or is listed here as one that
// cannot: a new option must be thought about.
func TestSettingsCoverOptions(t *testing.T) {
	harmless := []string{"Output", "Overwrite", "Resume", "Shard", "MinCoverage", "Threads", "Progress", "Device", "recipeRead", "temporary"}
	recorded := []string{"Bits", "Codec", "Layers", "TargetBits", "TargetBytes", "MaxDrop", "Method", "Rotate", "Data", "Samples", "Statistics", "Sites", "Seed"}
	options := reflect.TypeOf(QuantizeOptions{})
	for i := range options.NumField() {
		name := options.Field(i).Name
		if !slices.Contains(harmless, name) && !slices.Contains(recorded, name) {
			t.Errorf("QuantizeOptions.%s: a run resumed with another value would not be refused; see QuantizeOptions.settings", name)
		}
	}
}

// Shares are as even as their largest piece allows, and together they are all of the work.
func TestSharesAreEven(t *testing.T) {
	sizes := []int64{1, 9, 4, 4, 1, 5}
	taken := make([]int, len(sizes))
	for index := range 3 {
		var load int64
		for i, mine := range (Shard{index, 3}).divide(sizes) {
			if mine {
				load += sizes[i]
				taken[i]++
			}
		}
		if load < 7 || load > 9 {
			t.Errorf("share %d has %d of 24", index, load)
		}
	}
	if slices.ContainsFunc(taken, func(n int) bool { return n != 1 }) {
		t.Errorf("pieces are taken %v times", taken)
	}
}
