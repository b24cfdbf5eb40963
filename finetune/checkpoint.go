package finetune

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/cosetq/cosetq/internal/atomicfile"
)

// checkpointMagic begins a checkpoint; the number is its version. A SHA-256 sum of all before it ends one.
const checkpointMagic = "cosetq training 4\n"

// checkpointHeader is the JSON line after the magic. Arrays of numbers follow in the order of [trainer.arrays].
type checkpointHeader struct {
	Settings []setting `json:"settings"` // what must be the same to go on
	Done     int       `json:"done"`
	Judged   int       `json:"judged,omitempty"`
	Elapsed  int64     `json:"elapsed_ns"`
	Start    float64   `json:"start"`
	Best     float64   `json:"best"`
	BestStep int       `json:"best_step"`
	Last     float64   `json:"last"`
	Retreats int       `json:"retreats,omitempty"`
	Restart  restart   `json:"restart"`
}

// ErrCheckpoint says that a checkpoint cannot be resumed.
var ErrCheckpoint = errors.New("finetune: the training cannot be resumed")

// setting is something that a training depends on, by the name a person knows it by. A digest means nothing to one.
type setting struct {
	Name, Value string
	Digest      bool `json:",omitempty"`
}

// identify lists what a checkpoint must share with the training that resumes it, before that has begun.
func (t *trainer) identify() ([]setting, error) {
	var all []setting
	add := func(name string, value any) { all = append(all, setting{Name: name, Value: fmt.Sprint(value)}) }
	add("the number of steps", t.opt.Steps)
	add("the time to train", t.opt.MaxTime)
	add("the batch", t.opt.Batch)
	add("the number of batches in a step", t.opt.Accumulate)
	add("the loss", t.opt.Loss)
	add("the rate", t.rateBefore())
	add("the warm-up", t.opt.WarmUp)
	add("the bound on the gradient", t.opt.Clip)
	add("the number of samples to train on", len(t.order.train))
	add("the number of samples held out", len(t.order.heldOut))
	add("the seed", t.opt.Seed)
	add("the number of weights", len(t.latents))
	for _, l := range t.latents {
		add("weight "+strconv.Quote(l.Input), fmt.Sprintf("%v %d×%d", l.Matrix.Codec, l.n, l.k))
	}
	for _, name := range slices.Sorted(maps.Keys(t.opt.Sources)) {
		all = append(all, setting{name, t.opt.Sources[name], true})
	}
	sum := sha256.New()
	for _, l := range t.latents {
		m := l.Matrix
		fmt.Fprintf(sum, "%q %v %d×%d tile %d 2^%d frozen %v\n", l.Input, m.Codec, l.n, l.k, m.Tile, m.Exponent, l.Frozen)
		parts := []any{m.Codes, m.Gains, m.Scales, m.ScaleIndex}
		if r := m.Rotation; r != nil {
			parts = append(parts, int64(r.Block), r.Signs)
		}
		for _, part := range parts {
			if err := binary.Write(sum, binary.LittleEndian, part); err != nil {
				return nil, err
			}
		}
	}
	all = append(all, setting{"the codes to start from", hex.EncodeToString(sum.Sum(nil)), true})
	sum.Reset()
	for _, p := range t.parameters {
		fmt.Fprintf(sum, "%q %d\n", p.name, len(p.x))
		if err := binary.Write(sum, binary.LittleEndian, p.x); err != nil {
			return nil, err
		}
	}
	return append(all, setting{"the parameters to start from", hex.EncodeToString(sum.Sum(nil)), true}), nil
}

// rateBefore says by which rate the training begins: a chosen one falls with the steps, which a training by time does not know yet.
func (t *trainer) rateBefore() string {
	if t.chosen && t.opt.Steps == 0 {
		return fmt.Sprint(t.opt.Rate, " (less with many steps)")
	}
	return fmt.Sprint(t.peak(float64(t.opt.Steps)))
}

// same makes it an error when a checkpoint was made with other settings.
func (h *checkpointHeader) same(now []setting) error {
	for i, s := range now {
		if i >= len(h.Settings) || h.Settings[i].Name != s.Name {
			return fmt.Errorf("%w: it is of another model, without %s", ErrCheckpoint, s.Name)
		}
		was := h.Settings[i].Value
		switch {
		case was == s.Value:
		case s.Digest:
			return fmt.Errorf("%w: %s: not what the checkpoint was made with", ErrCheckpoint, s.Name)
		default:
			return fmt.Errorf("%w: %s is %s in the checkpoint and %s now", ErrCheckpoint, s.Name, was, s.Value)
		}
	}
	return nil
}

// arrays lists the state of the training and of the best snapshot, for reading and writing alike.
func (t *trainer) arrays() []any {
	var all []any
	for _, l := range t.latents {
		if l.Frozen {
			continue
		}
		all = append(all, l.u, l.opt.m, l.opt.v, l.logScale, l.scaleOpt.m, l.scaleOpt.v)
		best := t.best.matrices[l.Input]
		all = append(all, best.Codes, best.Gains, best.Scales)
	}
	for _, p := range t.parameters {
		all = append(all, p.x, p.opt.m, p.opt.v, t.best.parameters[p.name])
	}
	return all
}

// newEnding is what the name of a checkpoint that is being written ends in: always the same, so that what a killed training leaves
// is replaced by the next one.
const newEnding = ".new"

// CheckpointFiles are the files that a training writes for a checkpoint at path.
func CheckpointFiles(path string) []string { return []string{path + newEnding, path} }

// RemoveCheckpoint removes a checkpoint and what a killed training left of one, where they are there.
func RemoveCheckpoint(path string) error {
	var all error
	for _, p := range CheckpointFiles(path) {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = errors.Join(all, err)
		}
	}
	return all
}

// checkpoint writes the state of the training beside the place it is to have, and puts it there when it is whole.
func (t *trainer) checkpoint(c *clock) error {
	if t.opt.Checkpoint == "" {
		return nil
	}
	f, err := os.Create(t.opt.Checkpoint + newEnding)
	if err == nil {
		err = atomicfile.Place(f, t.opt.Checkpoint, t.writeCheckpoint(f, c))
	}
	if err != nil {
		return fmt.Errorf("finetune: write a checkpoint: %w", err)
	}
	return nil
}

func (t *trainer) writeCheckpoint(f io.Writer, c *clock) error {
	w := bufio.NewWriterSize(f, 1<<20)
	header, err := json.Marshal(checkpointHeader{
		Settings: t.identity, Done: t.done, Judged: t.judged, Elapsed: int64(c.elapsed()), Start: t.start, Best: t.best.loss, BestStep: t.best.step,
		Last: t.last, Retreats: t.retreats, Restart: t.resumed,
	})
	if err != nil {
		return err
	}
	sum := sha256.New()
	summed := io.MultiWriter(w, sum)
	if _, err := fmt.Fprintf(summed, "%s%s\n", checkpointMagic, header); err != nil {
		return err
	}
	for _, a := range t.arrays() {
		if err := binary.Write(summed, binary.LittleEndian, a); err != nil {
			return err
		}
	}
	if _, err := w.Write(sum.Sum(nil)); err != nil {
		return err
	}
	return w.Flush()
}

// restore reads a checkpoint.
func (t *trainer) restore(c *clock) error {
	f, err := os.Open(t.opt.Checkpoint)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: there is no checkpoint %s", ErrCheckpoint, t.opt.Checkpoint)
	}
	if err != nil {
		return fmt.Errorf("finetune: resume: %w", err)
	}
	defer f.Close()
	content, err := verified(f)
	if err == nil {
		err = t.restoreFrom(bufio.NewReaderSize(content, 1<<20), c)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", t.opt.Checkpoint, err)
	}
	return nil
}

// verified returns what a checkpoint holds in front of its sum, which is right.
func verified(f *os.File) (io.Reader, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	size := info.Size() - sha256.Size
	if size < 0 {
		return nil, fmt.Errorf("%w: the file is no checkpoint", ErrCheckpoint)
	}
	content := io.NewSectionReader(f, 0, size)
	sum, stored := sha256.New(), make([]byte, sha256.Size)
	if _, err := io.Copy(sum, content); err != nil {
		return nil, err
	}
	if _, err := f.ReadAt(stored, size); err != nil {
		return nil, err
	}
	if !bytes.Equal(sum.Sum(nil), stored) {
		return nil, fmt.Errorf("%w: the file is damaged, or no checkpoint of this version", ErrCheckpoint)
	}
	_, err = content.Seek(0, io.SeekStart)
	return content, err
}

// maxHeader bounds the header of a checkpoint.
const maxHeader = 1 << 24

func (t *trainer) restoreFrom(r *bufio.Reader, c *clock) error {
	magic := make([]byte, len(checkpointMagic))
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != checkpointMagic {
		return fmt.Errorf("%w: the file is no checkpoint of this version", ErrCheckpoint)
	}
	var h checkpointHeader
	if err := json.NewDecoder(&lineReader{r: r, left: maxHeader}).Decode(&h); err != nil {
		return fmt.Errorf("%w: its header is damaged: %v", ErrCheckpoint, err)
	}
	if err := h.same(t.identity); err != nil {
		return err
	}
	t.best = t.snapshot(h.Best) // of the right sizes, to be read over
	for _, a := range t.arrays() {
		if err := binary.Read(r, binary.LittleEndian, a); err != nil {
			return fmt.Errorf("%w: it ends early: %v", ErrCheckpoint, err)
		}
	}
	if _, err := r.ReadByte(); err != io.EOF {
		return fmt.Errorf("%w: it is longer than it should be", ErrCheckpoint)
	}
	t.done, t.judged, t.start, t.best.step, t.last = h.Done, h.Judged, h.Start, h.BestStep, h.Last
	t.retreats, t.resumed = h.Retreats, h.Restart
	c.before = time.Duration(h.Elapsed)
	for _, m := range t.best.matrices {
		if err := m.Validate(); err != nil {
			return fmt.Errorf("%w: %v", ErrCheckpoint, err)
		}
	}
	for _, l := range t.latents {
		l.restoreScales()
	}
	for _, p := range t.parameters {
		p.refresh()
	}
	return t.parallel(stretch.encode)
}

// lineReader reads up to the end of a line.
type lineReader struct {
	r    *bufio.Reader
	left int
	over bool
}

func (l *lineReader) Read(p []byte) (int, error) {
	for i := range p {
		if l.over || l.left == 0 {
			return i, io.EOF
		}
		b, err := l.r.ReadByte()
		if err != nil {
			return i, err
		}
		l.left--
		l.over = b == '\n'
		p[i] = b
	}
	return len(p), nil
}
