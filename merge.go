package cosetq

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"al.essio.dev/pkg/shellescape"

	"github.com/cosetq/cosetq/journal"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/rewrite"
)

// MergeOptions say how to put the shares of a model together.
type MergeOptions struct {
	Output    string   // what the runs with a Shard had as their Output; "" is the input's name ending in .q.onnx
	Overwrite bool     // replace the output if it exists
	Progress  Progress // may be nil
}

// Merge writes the model whose weights several runs of [Quantize] with a Shard have coded. It takes all options from their
// journal, checks every code and that it is of the model's weight, and gives the same bytes as one run for all of it. The
// journal is removed in the end.
func Merge(ctx context.Context, input string, o MergeOptions) (*QuantizeReport, error) {
	start := time.Now()
	m, err := OpenModel(input)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	reads := Reads{Models: []string{input}}
	output, err := OutputPath(o.Output, reads, ".q.onnx", o.Overwrite, dataEnding)
	if errors.Is(err, fs.ErrExist) {
		if output, _ = OutputPath(o.Output, reads, ".q.onnx", true); journalPlaced(output) {
			err = nil
		}
	}
	if err != nil {
		return nil, err
	}
	release, err := claim(output, false)
	if err != nil {
		return nil, err
	}
	defer release()
	j, err := journal.Open(output + JournalEnding)
	if err != nil {
		return nil, usage(err, "run `cosetq quantize %s -o %s --shard i/n` for every share first", input, output)
	}
	r, err := merge(ctx, m, j, output, o)
	if err != nil {
		_ = j.Close()
		return nil, err
	}
	r.Seconds, r.PeakRSS = time.Since(start).Seconds(), PeakRSS()
	return r, j.Remove()
}

func merge(ctx context.Context, m *onnx.Model, j *journal.Journal, output string, o MergeOptions) (*QuantizeReport, error) {
	if err := checkModel(m); err != nil {
		return nil, err
	}
	q, codec, err := recallOptions(m, j)
	if err != nil {
		return nil, err
	}
	q.Overwrite, q.Progress = o.Overwrite, o.Progress
	recipe, err := q.recipeBeside(codec, m.Path(), output)
	if err != nil {
		return nil, err
	}
	sites, err := rewrite.FindSites(m, q.Sites)
	if err != nil {
		return nil, err
	}
	r := newQuantizeReport(m.Path(), q)
	weights := Shard{}.share(weightsOf(sites))
	codecs, err := q.layerCodecs(sites, codec)
	if err == nil && codec == nil {
		codecs, _, err = recallPlan(r, j, weights)
	}
	if err != nil {
		return nil, err
	}
	r.Codec = codecs.names()
	if r.InputBytes, err = modelBytes(m); err != nil {
		return nil, err
	}
	step := q.Progress.stage("checking", int64(len(weights)))
	results := map[*rewrite.Weight]*codedWeight{}
	var missing []numbered
	for _, w := range weights {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		l, err := j.Get(w.key(codecs[w.Weight]))
		switch {
		case err != nil:
			return nil, fail(Usage, err, "delete the file and run its share again")
		case l == nil:
			missing = append(missing, w)
			continue
		}
		if results[w.Weight], err = restore(ctx, l, w); err != nil {
			return nil, err
		}
		w.Release()
		step(1)
	}
	if len(missing) > 0 {
		return nil, q.notDone(missing, weights, m.Path(), output, j)
	}
	return r, r.assemble(ctx, q, m, codec, sites, results, output, recipe, j)
}

// recallOptions returns the options that a journal was begun with, the codec being nil where a target chose, and makes sure
// that it is of this model and program.
func recallOptions(m *onnx.Model, j *journal.Journal) (*QuantizeOptions, *lattice.Codec, error) {
	s := j.Settings()
	now := j.Settings()
	now[settingProgram] = Version()
	var err error
	if now[settingModel], err = fingerprint(m); err != nil {
		return nil, nil, err
	}
	if err := j.Require(now); err != nil {
		return nil, nil, usage(fmt.Errorf("%s is of another run: %w", j.Dir(), err), "merge with the model and the program that the shares had")
	}
	o, err := optionsOf(s)
	if err != nil {
		return nil, nil, err
	}
	if o.Statistics != "" { // the journal knows it by its name only
		o.Statistics = filepath.Join(filepath.Dir(j.Dir()), o.Statistics)
	}
	if o.allocates() {
		return o, nil, nil
	}
	codec, err := lattice.ParseCodec(o.Codec)
	return o, codec, err
}

// notDone is the error of a merge that found weights missing: it names the shares that have them, and the command that does one.
func (o *QuantizeOptions) notDone(missing, weights []numbered, input, output string, j *journal.Journal) error {
	left := fmt.Sprintf("%d of %d weights are missing, the first is %q", len(missing), len(weights), missing[0].Name())
	count, err := shareCount(j)
	if err != nil {
		return err
	}
	if count == 0 {
		return usage(fmt.Errorf("%s is of a run for the whole model that is not done: %s", j.Dir(), left), "run `%s` to its end", o.commandOf(input, output, "--resume"))
	}
	all := make([]*rewrite.Weight, len(weights))
	for i, w := range weights {
		all[i] = w.Weight
	}
	var shares []string
	for index := range count {
		s := Shard{index, count}
		if slices.ContainsFunc(s.share(all), func(w numbered) bool { return slices.Contains(missing, w) }) {
			shares = append(shares, s.String())
		}
	}
	hint := "run `%s` to its end; a share that was killed goes on when it is run again"
	command := o.commandOf(input, output, "--shard", shares[0])
	if len(shares) == 1 {
		return usage(fmt.Errorf("share %s is not done: %s", shares[0], left), hint, command)
	}
	named := strings.Join(shares[:min(len(shares), 5)], ", ")
	if n := len(shares) - 5; n > 0 {
		named += fmt.Sprintf(" and %d more", n)
	}
	return usage(fmt.Errorf("shares %s are not done: %s", named, left), hint+"; so for each of them", command)
}

// commandOf is the command line that continues the run of a journal, whose data and statistics it knows by their names alone.
func (o *QuantizeOptions) commandOf(input, output string, args ...string) string {
	line := []string{"cosetq", "quantize", input, "-o", output}
	for _, f := range o.named() {
		switch v := f.value; v.Kind() {
		case reflect.Slice:
			for i := range v.Len() {
				line = append(line, "--"+f.key, fmt.Sprint(v.Index(i)))
			}
		case reflect.Bool:
			line = append(line, "--"+f.key)
		default:
			line = append(line, "--"+f.key, fmt.Sprint(reflect.Indirect(v)))
		}
	}
	return shellescape.QuoteCommand(append(line, args...))
}

// shareCount is what note kept, 0 where the journal is of a run for all of the work.
func shareCount(j *journal.Journal) (int, error) {
	path := filepath.Join(j.Dir(), sharesInJournal)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	count, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || count < 1 || count > maxShards {
		return 0, usage(fmt.Errorf("%s does not say of how many shares: it holds %q", path, text), "delete it, and run the shares again: what is done is kept")
	}
	return count, nil
}
