package calib

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"

	"github.com/cosetq/cosetq/internal/filestart"
	"github.com/cosetq/cosetq/internal/regularfile"
)

// A statistics file (.cqs) holds, all numbers little-endian:
//
//	header   40 bytes: the magic "cosetqs\x00", uint32 version, uint32 CRC-32C of the index, uint64 offset and uint64 length
//	         of the index, 8 zero bytes
//	payload  per observation, then per gradient, back to back: E[x] as float32 [K], then the upper triangle of E[x xᵀ] by
//	         rows as float32 [K(K+1)/2], or its diagonal [K]
//	index    JSON, to the end of the file: statisticsIndex
//
// The moments are summed up in float64 and stored in float32, which halves the file: rounding them to 24 bits moves an
// eigenvalue by 10⁻⁷ of the largest, and whoever inverts the matrix adds 10⁻² of its mean diagonal first.
const (
	statisticsMagic   = "cosetqs\x00"
	statisticsVersion = 1
	headerSize        = 40
)

// Bounds that no honest file exceeds, so that a hostile one cannot ask for memory.
const (
	maxIndex   = 1 << 26 // bytes
	maxColumns = 1 << 24
)

// ErrNotStatistics says that a file is no statistics file.
var ErrNotStatistics = errors.New("not a statistics file")

// ErrCorrupt says that a statistics file is damaged.
var ErrCorrupt = errors.New("the statistics file is damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// statisticsIndex is the JSON of the index.
type statisticsIndex struct {
	Model        string             `json:"model"`
	Fingerprint  string             `json:"fingerprint"`
	Program      string             `json:"program"`
	Shard        string             `json:"shard,omitempty"`
	Data         []DataUsed         `json:"data"`
	Observations []observationIndex `json:"observations"`
	Gradients    []observationIndex `json:"gradients,omitempty"` // their payloads follow those of the observations
	Draws        int64              `json:"draws,omitempty"`
}

type observationIndex struct {
	Tag        string   `json:"tag"`
	Activation string   `json:"activation"`
	Weights    []string `json:"weights"`
	Columns    int      `json:"columns"`
	Rows       int64    `json:"rows"`
	BadRows    int64    `json:"bad_rows,omitempty"`
	Full       bool     `json:"full"`
	Min        float64  `json:"min"`
	Max        float64  `json:"max"`
	Weight     float64  `json:"weight"`
	Damping    float64  `json:"damping,omitempty"`
	Offset     int64    `json:"offset"` // in the file
	CRC        uint32   `json:"crc32c"` // of the payload
}

// payload is the size in bytes of what is stored of an observation.
func (o *observationIndex) payload() int64 {
	return 4 * (int64(o.Columns) + rowNumbers(o.Full, o.Columns, 0, o.Columns))
}

// IsStatisticsFile reports whether the file at path starts like a statistics file.
func IsStatisticsFile(path string) bool { return filestart.Is(path, statisticsMagic) }

// StatisticsFile is an open statistics file. Moments are read from it when they are asked for.
type StatisticsFile struct {
	Statistics
	Path string
	Size int64

	file *os.File // nil when read from elsewhere
	gone bool     // the file goes when it is closed
	sums map[*Observation]uint32
}

// OpenStatistics opens and checks the file at path. The error wraps ErrNotStatistics or ErrCorrupt, or is that of the
// operating system.
func OpenStatistics(path string) (*StatisticsFile, error) {
	f, err := regularfile.Open(path)
	if errors.Is(err, regularfile.ErrNot) {
		err = fmt.Errorf("%s: %w", path, ErrNotStatistics)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	var s *StatisticsFile
	if err == nil {
		s, err = ReadStatistics(f, info.Size())
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s.Path, s.file = path, f
	return s, nil
}

// ReadStatistics checks a statistics file of the given size and reads all but the moments. The error wraps ErrNotStatistics
// or ErrCorrupt, or is that of r.
func ReadStatistics(r io.ReaderAt, size int64) (*StatisticsFile, error) {
	s := &StatisticsFile{Size: size, sums: map[*Observation]uint32{}}
	if err := s.read(r, size); err != nil {
		return nil, err
	}
	return s, nil
}

// Close closes the file; its moments cannot be read any more.
func (s *StatisticsFile) Close() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	if s.gone {
		err = errors.Join(err, os.Remove(s.file.Name()))
	}
	return err
}

// unreadable tells what the disk has to answer for from the end of the file, which may come too early.
func unreadable(err error) bool { return err != nil && !errors.Is(err, io.EOF) }

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, args...)...)
}

// read reads header and index, and believes nothing in them.
func (s *StatisticsFile) read(r io.ReaderAt, size int64) error {
	header := make([]byte, headerSize)
	n, err := r.ReadAt(header, 0)
	if unreadable(err) {
		return fmt.Errorf("read the header of the statistics: %w", err)
	}
	if n < len(statisticsMagic) || string(header[:len(statisticsMagic)]) != statisticsMagic {
		return ErrNotStatistics
	} else if n < headerSize {
		return corrupt("it ends within its header")
	}
	if v := binary.LittleEndian.Uint32(header[8:]); v != statisticsVersion {
		return fmt.Errorf("%w of a version that this program reads: version %d, not %d", ErrNotStatistics, v, statisticsVersion)
	}
	offset, length := int64(binary.LittleEndian.Uint64(header[16:])), int64(binary.LittleEndian.Uint64(header[24:]))
	if offset < headerSize || length < 0 || length > maxIndex || offset > size-length || offset+length != size {
		return corrupt("its index is said to be at %d, %d bytes long, in a file of %d", offset, length, size)
	}
	text := make([]byte, length)
	switch n, err := r.ReadAt(text, offset); {
	case unreadable(err):
		return fmt.Errorf("read the index of the statistics: %w", err)
	case n < len(text):
		return corrupt("its index: %v", err)
	}
	if crc32.Checksum(text, castagnoli) != binary.LittleEndian.Uint32(header[12:]) {
		return corrupt("the checksum of its index is wrong")
	}
	var index statisticsIndex
	d := json.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&index); err != nil {
		return corrupt("its index: %v", err)
	}
	s.Statistics = Statistics{Model: index.Model, Fingerprint: index.Fingerprint, Program: index.Program, Shard: index.Shard, Data: index.Data, Draws: index.Draws}
	if s.Draws < 0 {
		return corrupt("%d draws", s.Draws)
	}
	end := int64(headerSize)
	tags := map[string]bool{}
	take := func(list []observationIndex, to *[]*Observation) error {
		for i := range list {
			e := &list[i]
			switch {
			case e.Columns < 1 || e.Columns > maxColumns:
				return corrupt("observation %q has %d columns", e.Tag, e.Columns)
			case e.Rows < 0 || e.BadRows < 0:
				return corrupt("observation %q has %d rows", e.Tag, e.Rows)
			case !(e.Weight >= 0) || math.IsInf(e.Weight, 0):
				return corrupt("observation %q weighs %v", e.Tag, e.Weight)
			case !(e.Damping >= 0) || math.IsInf(e.Damping, 0):
				return corrupt("observation %q has a damping of %v", e.Tag, e.Damping)
			case tags[e.Tag]:
				return corrupt("observation %q stands there twice", e.Tag)
			case e.Offset != end || e.payload() > offset-end:
				return corrupt("observation %q lies at %d, %d bytes long", e.Tag, e.Offset, e.payload())
			}
			tags[e.Tag] = true
			end += e.payload()
			o := &Observation{Tag: e.Tag, Activation: e.Activation, Weights: e.Weights, Columns: e.Columns, Rows: e.Rows,
				BadRows: e.BadRows, Full: e.Full, Min: e.Min, Max: e.Max, Weight: e.Weight, Damping: e.Damping,
				Moments: storedMoments{r, e.Offset, e.Columns, e.Full}}
			*to = append(*to, o)
			s.sums[o] = e.CRC
		}
		return nil
	}
	if err := take(index.Observations, &s.Observations); err != nil {
		return err
	}
	if err := take(index.Gradients, &s.Gradients); err != nil {
		return err
	}
	if end != offset {
		return corrupt("%d bytes belong to no observation", offset-end)
	}
	return nil
}

// Verify reads an observation of the file whole and checks it against its checksum.
func (s *StatisticsFile) Verify(o *Observation) error {
	want, ok := s.sums[o]
	if !ok {
		return fmt.Errorf("%s: observation %q is not of this file", s.Path, o.Tag)
	}
	sum := crc32.New(castagnoli)
	if err := o.writePayload(sum); err != nil {
		return fmt.Errorf("%s: %w", s.Path, err)
	}
	if sum.Sum32() != want {
		return fmt.Errorf("%s: %w", s.Path, corrupt("the checksum of observation %q is wrong", o.Tag))
	}
	return nil
}

// storedMoments reads moments from a file.
type storedMoments struct {
	r       io.ReaderAt
	offset  int64
	columns int
	full    bool
}

func (m storedMoments) Mean(dst []float32) error { return m.read(dst, 0, int64(m.columns)) }

func (m storedMoments) Rows(dst []float32, first, last int) error {
	if first < 0 || last < first || last > m.columns {
		return fmt.Errorf("statistics: rows %d to %d of %d asked for", first, last, m.columns)
	}
	return m.read(dst, int64(m.columns)+rowNumbers(m.full, m.columns, 0, first), rowNumbers(m.full, m.columns, first, last))
}

// read reads count numbers, the first being number at of the payload.
func (m storedMoments) read(dst []float32, at, count int64) error {
	if int64(len(dst)) != count {
		return fmt.Errorf("statistics: %d numbers asked for into %d", count, len(dst))
	}
	raw := make([]byte, 4*count)
	switch n, err := m.r.ReadAt(raw, m.offset+4*at); {
	case unreadable(err):
		return fmt.Errorf("read moments of the statistics: %w", err)
	case n < len(raw):
		return corrupt("%v", err)
	}
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return nil
}
