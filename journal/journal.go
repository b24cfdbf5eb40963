package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cosetq/cosetq/internal/atomicfile"
)

const (
	settingsName = "settings.json"
	planName     = "plan.json"
	layerEnding  = ".layer"
	tempEnding   = ".tmp"
)

// A journal of another layout is refused as one of other settings is.
const (
	formatName = "journal format"
	format     = "4"
)

// identity is the content of settings.json. The output is in the same file as the settings so that a removal, which deletes it last,
// forgets both at once.
type identity struct {
	Format   string   `json:"journal format"` // formatName
	Settings Settings `json:"settings"`
	Output   []File   `json:"output,omitempty"`
}

// Settings are everything that the results depend on, by the name a person knows it by.
type Settings map[string]string

// ErrNoJournal says that a folder holds no journal.
var ErrNoJournal = errors.New("there is no journal")

// MismatchError is a setting in which a run differs from the one that began the journal.
type MismatchError struct{ Name, Journal, Now string }

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%s is %s in the journal and %s now", e.Name, quoted(e.Journal), quoted(e.Now))
}

func quoted(s string) string {
	if s == "" {
		return "not set"
	}
	return s
}

// Journal is the folder of one run, or of one output that several processes work on. Its methods may be called from several
// goroutines and processes.
type Journal struct {
	dir      string
	settings Settings
	codecs   codecs
	mapped   mappings
	flusher  *flusher
}

// ForeignError says that a folder with the name of a journal holds something else. It is left alone.
type ForeignError struct{ Dir, File string }

func (e *ForeignError) Error() string {
	return fmt.Sprintf("%s holds %s, but no journal that it is of", e.Dir, e.File)
}

// Create begins a journal in the folder dir, which is made. The error wraps fs.ErrExist when a journal is there already, and is a
// *ForeignError when other files are.
func Create(dir string, s Settings) (*Journal, error) {
	s = maps.Clone(s)
	b, err := json.MarshalIndent(identity{Format: format, Settings: s}, "", "\t")
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err := onlyRemains(dir); err != nil {
		return nil, err
	}
	j := &Journal{dir: dir, settings: s, flusher: newFlusher(dir)}
	if err := j.publish(settingsName, b); err != nil {
		_ = os.Remove(dir) // unless somebody else's files are there
		return nil, fmt.Errorf("journal %s: %w", dir, err)
	}
	return j, nil
}

// onlyRemains makes it an error when a folder without settings holds more than what a killed process leaves of one: files of others, or
// results of settings that are gone, for which new ones would vouch.
func onlyRemains(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := strings.TrimPrefix(e.Name(), ".") // temporary files are hidden
		if name == settingsName || strings.HasPrefix(name, settingsName+".") && strings.HasSuffix(name, tempEnding) {
			continue
		}
		if _, err := os.Lstat(filepath.Join(dir, settingsName)); err != nil { // another process may just have begun
			return &ForeignError{dir, e.Name()}
		}
	}
	return nil
}

// Discard deletes the journal in dir, whatever state it is in; own are the names of the files that the caller kept there. The error
// wraps fs.ErrNotExist when there is no such folder, and is a *ForeignError when something in it is of no journal: then nothing is
// deleted.
func Discard(dir string, own ...string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		temporary := strings.HasPrefix(name, ".") || strings.HasSuffix(name, tempEnding)
		if !temporary && name != settingsName && name != planName && !strings.HasSuffix(name, layerEnding) && !slices.Contains(own, name) {
			return &ForeignError{dir, name}
		}
	}
	return (&Journal{dir: dir, flusher: newFlusher(dir)}).Remove()
}

// publish writes a file that appears complete or not at all. The error wraps fs.ErrExist when it is there already: of several
// processes that publish at once, one wins.
func (j *Journal) publish(name string, b []byte) error {
	return atomicfile.WriteNew(filepath.Join(j.dir, name), 0o666, func(f *os.File) error {
		_, err := f.Write(b)
		return err
	})
}

// Open opens the journal in dir, whatever its settings. The error wraps ErrNoJournal when there is none.
func Open(dir string) (*Journal, error) {
	id, err := readIdentity(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNoJournal)
	}
	if err != nil {
		return nil, err
	}
	return &Journal{dir: dir, settings: id.Settings, flusher: newFlusher(dir)}, nil
}

func readIdentity(dir string) (*identity, error) {
	path := filepath.Join(dir, settingsName)
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var id identity
	if err := json.Unmarshal(b, &id); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if id.Format != format {
		return nil, fmt.Errorf("journal %s: %w", dir, &MismatchError{formatName, id.Format, format})
	}
	return &id, nil
}

// Settings returns what the journal was begun with.
func (j *Journal) Settings() Settings { return maps.Clone(j.settings) }

// Require compares the settings. The error is a *MismatchError.
func (j *Journal) Require(s Settings) error {
	mine := j.settings
	names := slices.Sorted(maps.Keys(mine))
	for name := range s {
		if _, ok := mine[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if mine[name] != s[name] {
			return &MismatchError{name, mine[name], s[name]}
		}
	}
	return nil
}

// Dir returns the folder, in which the caller may keep files of its own: those with a dot in front count as temporary.
func (j *Journal) Dir() string { return j.dir }

// Empty tells whether no result has been stored.
func (j *Journal) Empty() bool {
	found, err := filepath.Glob(filepath.Join(j.dir, "*"+layerEnding))
	return err == nil && len(found) == 0
}

// Close gives up all views that Get returned, and returns when all results are on the disk. The folder stays.
func (j *Journal) Close() error { return errors.Join(j.flusher.wait(), j.mapped.close()) }

// Remove closes the journal and deletes the folder.
func (j *Journal) Remove() error {
	j.flusher.forget()
	err := j.mapped.close()
	// The settings last, and only if all else went: what a removal leaves that was killed, or failed, is still a journal, or none.
	entries, left := os.ReadDir(j.dir)
	for _, e := range entries {
		if e.Name() != settingsName {
			left = errors.Join(left, removeAll(filepath.Join(j.dir, e.Name())))
		}
	}
	if left != nil {
		return errors.Join(err, left)
	}
	return errors.Join(err, removeAll(j.dir))
}

// removeAll is os.RemoveAll; tests replace it.
var removeAll = os.RemoveAll

// File is a final file and its checksum.
type File struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
}

// SetOutput records the files that are about to get their names. It fails when a result, from which they were written, did not
// reach the disk.
func (j *Journal) SetOutput(files []File) error {
	b, err := json.MarshalIndent(identity{Format: format, Settings: j.settings, Output: files}, "", "\t")
	if err == nil {
		err = j.flusher.wait()
	}
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(j.dir, settingsName), 0o666, func(f *os.File) error {
		_, err := f.Write(b)
		return err
	})
}

// Output returns the files of the last SetOutput: they may have been put in place by a process that was killed then.
func (j *Journal) Output() ([]File, error) {
	id, err := readIdentity(j.dir)
	if err != nil {
		return nil, err
	}
	return id.Output, nil
}

// SetPlan stores what the run decided about the weights, unless a plan is there: then that of another process stands. It returns
// the plan that stands.
func (j *Journal) SetPlan(plan []byte) ([]byte, error) {
	if err := j.publish(planName, plan); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return j.Plan()
}

// Plan returns what SetPlan stored, or nil.
func (j *Journal) Plan() ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(j.dir, planName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// put writes a file that appears complete or not at all. Unlike publish it does not wait for the disk, which is for the flusher.
func (j *Journal) put(name string, parts ...[]byte) error {
	tmp, err := j.write(name, parts...)
	if err != nil {
		return err
	}
	if err = os.Rename(tmp, filepath.Join(j.dir, name)); err != nil {
		_ = os.Remove(tmp)
	}
	return err
}

// write writes a file under a temporary name of its own.
func (j *Journal) write(name string, parts ...[]byte) (tmp string, err error) {
	tmp = filepath.Join(j.dir, fmt.Sprintf("%s.%08x%s", name, rand.Uint32(), tempEnding))
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return "", err
	}
	for _, p := range parts {
		if _, err = f.ReadFrom(bytes.NewReader(p)); err != nil {
			break
		}
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		_ = os.Remove(tmp)
		return "", err
	}
	return tmp, nil
}
