package cosetq

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"al.essio.dev/pkg/shellescape"

	"github.com/cosetq/cosetq/internal/atomicfile"
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
	note, err := readRunNote(j)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range []struct{ name, path *string }{{&o.Data, &note.Data}, {&o.Statistics, &note.Statistics}} { // the settings have names only
		if *p.name != "" && !isRandom(*p.name) {
			*p.name = besideRecipe(filepath.Dir(j.Dir()), cmp.Or(*p.path, *p.name))
		}
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
	note, err := readRunNote(j)
	if err != nil {
		return err
	}
	count := note.Shares
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

// commandOf is the command line that continues the run of a journal.
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

// runNote is what a merge has to know of a run beside its settings. That of the first share stands: by any division into shares it can
// be told who would do what is left.
type runNote struct {
	Shares     int    `json:"shares,omitempty"` // 0 where the run is for all of the work
	Data       string `json:"data,omitempty"`   // this and the next are paths from the folder of the output, as in a recipe
	Statistics string `json:"calib,omitempty"`
}

func (o *QuantizeOptions) noteRun(j *journal.Journal) error {
	note := runNote{Shares: o.Shard.Count}
	for _, p := range []struct{ to, from *string }{{&note.Data, &o.Data}, {&note.Statistics, &o.Statistics}} {
		if *p.from != "" && !isRandom(*p.from) {
			*p.to = fileNamed(pathFrom(filepath.Dir(j.Dir()), *p.from))
		}
	}
	text, err := json.Marshal(note)
	if err != nil {
		return err
	}
	err = atomicfile.WriteNew(filepath.Join(j.Dir(), runInJournal), 0o666, func(f *os.File) error {
		_, err := f.Write(text)
		return err
	})
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

func readRunNote(j *journal.Journal) (note runNote, err error) {
	path := filepath.Join(j.Dir(), runInJournal)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return note, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &note)
	}
	if err == nil && (note.Shares < 0 || note.Shares > maxShards) {
		err = fmt.Errorf("%d shares", note.Shares)
	}
	if err != nil {
		return note, usage(fmt.Errorf("%s: %w", path, err), "delete it, and run a share again: what is done is kept")
	}
	return note, nil
}
