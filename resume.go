package cosetq

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/internal/regularfile"
	"github.com/cosetq/cosetq/journal"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/rewrite"
)

// JournalEnding is what the folder of a journal adds to the name of the output.
const JournalEnding = ".journal"

// Files in it that are not the journal's: what --data gave, and what merge has to know of the run beside the settings.
const (
	statisticsInJournal = "statistics" + StatisticsEnding
	runInJournal        = "run.json"
)

var ownInJournal = []string{statisticsInJournal, statisticsInJournal + notesEnding, runInJournal}

// Names of the settings that a run and its journal must agree in, beside those of the recipe.
const (
	settingProgram    = "the version of cosetq"
	settingModel      = "the model"
	settingStatistics = "the statistics"
	settingData       = "the data"
)

// settings returns everything that the codes of the weights depend on. A weight itself is compared when its code is used.
func (o *QuantizeOptions) settings(m *onnx.Model, codec *lattice.Codec) (journal.Settings, error) {
	e := o.effective(codec)
	recipe, err := e.recipeSettings()
	if err != nil {
		return nil, err
	}
	s := journal.Settings(recipe)
	s[settingProgram] = Version()
	if s[settingModel], err = fingerprint(m); err != nil {
		return nil, err
	}
	if o.Statistics != "" {
		s[settingStatistics], err = fileSum(o.Statistics)
		if err != nil {
			return nil, usage(err, "give a file that `cosetq calibrate` wrote")
		}
	}
	if e.Data != "" && !isRandom(e.Data) { // whose options say all
		s[settingData], err = calib.FingerprintData(o.Data, o.Samples)
	}
	return s, err
}

// fingerprint identifies a model; see calib.Fingerprint.
func fingerprint(m *onnx.Model) (print string, err error) {
	err = onnx.Guard(func() (err error) {
		print, err = calib.Fingerprint(m)
		return err
	})
	if err != nil {
		return "", fail(BadModel, err, "")
	}
	return print, nil
}

func fileSum(path string) (string, error) {
	f, err := regularfile.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// openJournal begins the journal of a run or goes on with the one there is.
func (o *QuantizeOptions) openJournal(m *onnx.Model, codec *lattice.Codec, output string) (*journal.Journal, error) {
	s, err := o.settings(m, codec)
	if err != nil {
		return nil, err
	}
	dir := output + JournalEnding
	var foreign *journal.ForeignError
	if o.Overwrite && !o.Resume && o.Shard.Count == 0 {
		err = journal.Discard(dir, ownInJournal...)
	}
	var j *journal.Journal
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		j, err = journal.Create(dir, s)
	}
	switch {
	case errors.As(err, &foreign):
		return nil, usage(err, "a run keeps its work in a folder of that name: move it away, or choose another -o")
	case err == nil || !errors.Is(err, fs.ErrExist):
		return j, err
	case !o.Resume && o.Shard.Count == 0:
		return nil, usage(fmt.Errorf("%s is there: a run that did not end, or is still at work", dir), "--resume goes on from where it was, --force starts anew")
	}
	j, err = journal.Open(dir)
	if err != nil {
		return nil, usage(err, "start anew with --force instead of --resume, or delete %s", dir)
	}
	if err := j.Require(s); err != nil {
		return nil, usage(fmt.Errorf("%s is of another run: %w", dir, err), "run with the same options, or start anew with --force")
	}
	return j, nil
}

// leaveJournal removes the journal of a run that is done, that cannot be done whatever is tried, or whose folder nobody will find
// again, and keeps what a run that was stopped has achieved.
func (o *QuantizeOptions) leaveJournal(j *journal.Journal, err error) error {
	if o.Shard.Count > 0 {
		return errors.Join(err, j.Close())
	}
	if err == nil {
		return j.Remove()
	}
	kind, hint := Classify(err)
	if kind == BadModel || kind == Nothing || kind == Quality || j.Empty() || o.temporary {
		return errors.Join(err, j.Remove())
	}
	_ = j.Close()
	if kind == Interrupted {
		hint = ""
	} else if hint != "" {
		hint += "; "
	}
	again := "run the same command with --resume to go on"
	if o.Resume {
		again = "run the same command again to go on"
	}
	return &Error{Kind: kind, Err: err, Hint: hint + "what was done is kept in " + j.Dir() + ": " + again}
}

// numbered is a weight and its number among those to code, which makes its name unique.
type numbered struct {
	*rewrite.Weight
	number int
}

// key names the result of coding the weight with a codec.
func (w numbered) key(codec *lattice.Codec) string {
	return fmt.Sprintf("%d %s %s", w.number, codec, w.Name())
}

// recall returns what the journal has for a weight and a codec, or nil. A layer that the disk damaged counts as not done.
func (r *QuantizeReport) recall(ctx context.Context, j *journal.Journal, w numbered, codec *lattice.Codec) (*codedWeight, error) {
	l, err := j.Get(w.key(codec))
	var damaged *journal.DamagedError
	if errors.As(err, &damaged) {
		r.Notes = append(r.Notes, fmt.Sprintf("%v; it was done again", damaged))
		return nil, j.Drop(w.key(codec))
	}
	if err != nil || l == nil {
		return nil, err
	}
	return restore(ctx, l, w)
}

// restore checks that a layer is of this very weight.
func restore(ctx context.Context, l *journal.Layer, w numbered) (*codedWeight, error) {
	source, err := journal.Digest(ctx, w)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fail(BadModel, err, "")
	}
	if source != l.Source {
		return nil, usage(fmt.Errorf("the journal is of another run: the weight %q has other numbers now", w.Name()), "restore the model, or start anew with --force")
	}
	c := &codedWeight{matrix: l.Matrix}
	if err := json.Unmarshal(l.Meta, c); err != nil {
		return nil, err
	}
	if n, k := w.Dims(); c.matrix != nil && (c.matrix.N != n || c.matrix.K != k) || c.matrix == nil && c.NonFinite == "" {
		return nil, fmt.Errorf("the journal has no code of %d × %d for %q", n, k, w.Name())
	}
	return c, nil
}

// store puts the result for the weight of that digest into the journal, and takes the code from there: it need not stay in memory.
func (c *codedWeight) store(j *journal.Journal, w numbered, codec *lattice.Codec, source string) error {
	w.Release() // before the code is read back: a large weight and two copies of its code would be in memory at once
	meta, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if err := j.Put(w.key(codec), journal.Layer{Source: source, Meta: meta, Matrix: c.matrix}); err != nil {
		return err
	}
	c.matrix = nil
	l, err := j.Get(w.key(codec))
	if err != nil {
		return err
	}
	if l == nil {
		return fmt.Errorf("%s vanished while it was in use", j.Dir())
	}
	c.matrix = l.Matrix
	return nil
}

// journalPlaced tells whether output is what a killed run put in place just before it could remove its journal.
func journalPlaced(output string) bool {
	j, err := journal.Open(output + JournalEnding)
	if err != nil {
		return false
	}
	files, err := j.Output()
	if err != nil {
		return false
	}
	for _, f := range files {
		if filepath.Base(f.Path) == filepath.Base(output) {
			sum, err := fileSum(output)
			return err == nil && sum == f.SHA256
		}
	}
	return false
}

// withdraw removes files that a killed run put in place just before it could say so, that they be written again.
func withdraw(j *journal.Journal) error {
	files, err := j.Output()
	if err != nil {
		return err
	}
	for _, f := range files {
		path := filepath.Join(filepath.Dir(j.Dir()), filepath.Base(f.Path))
		if sum, err := fileSum(path); err == nil && sum == f.SHA256 {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}
