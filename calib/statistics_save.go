package calib

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"

	"github.com/cosetq/cosetq/internal/atomicfile"
)

// Save writes the statistics to path, one row of moments at a time, and returns the size of the file. It appears whole or
// not at all; the error wraps fs.ErrExist when there is a file and overwrite is not set.
func (s *Statistics) Save(path string, overwrite bool) (size int64, err error) {
	write := atomicfile.WriteNew
	if overwrite {
		write = atomicfile.Write
	}
	err = write(path, 0o644, func(f *os.File) error {
		size, err = s.write(f)
		return err
	})
	if err != nil {
		return 0, err
	}
	return size, nil
}

// write writes the file from the start of f.
func (s *Statistics) write(f *os.File) (int64, error) {
	index := statisticsIndex{Model: s.Model, Fingerprint: s.Fingerprint, Program: s.Program, Shard: s.Shard, Data: s.Data, Draws: s.Draws}
	w := bufio.NewWriterSize(f, 1<<18)
	if _, err := w.Write(make([]byte, headerSize)); err != nil {
		return 0, err
	}
	offset := int64(headerSize)
	put := func(list []*Observation) ([]observationIndex, error) {
		var entries []observationIndex
		for _, o := range list {
			entry := observationIndex{Tag: o.Tag, Activation: o.Activation, Weights: o.Weights, Columns: o.Columns, Rows: o.Rows,
				BadRows: o.BadRows, Full: o.Full, Min: o.Min, Max: o.Max, Weight: o.Weight, Damping: o.Damping, Offset: offset}
			sum := crc32.New(castagnoli)
			if err := o.writePayload(io.MultiWriter(w, sum)); err != nil {
				return nil, fmt.Errorf("observation %q: %w", o.Tag, err)
			}
			entry.CRC = sum.Sum32()
			offset += entry.payload()
			entries = append(entries, entry)
		}
		return entries, nil
	}
	var err error
	if index.Observations, err = put(s.Observations); err != nil {
		return 0, err
	}
	if index.Gradients, err = put(s.Gradients); err != nil {
		return 0, err
	}
	text, err := json.Marshal(index)
	if err != nil {
		return 0, err
	}
	if len(text) > maxIndex {
		return 0, fmt.Errorf("an index of %d bytes is larger than %d", len(text), maxIndex)
	}
	if _, err := w.Write(text); err != nil {
		return 0, err
	}
	if err := w.Flush(); err != nil {
		return 0, err
	}
	header := make([]byte, 0, headerSize)
	header = append(header, statisticsMagic...)
	header = binary.LittleEndian.AppendUint32(header, statisticsVersion)
	header = binary.LittleEndian.AppendUint32(header, crc32.Checksum(text, castagnoli))
	header = binary.LittleEndian.AppendUint64(header, uint64(offset))
	header = binary.LittleEndian.AppendUint64(header, uint64(len(text)))
	header = header[:headerSize]
	if _, err := f.WriteAt(header, 0); err != nil {
		return 0, err
	}
	return offset + int64(len(text)), nil
}

// writePayload writes the mean and the moments.
func (o *Observation) writePayload(w io.Writer) error {
	row := make([]float32, o.Columns)
	var raw []byte
	put := func(v []float32) error {
		raw = raw[:0]
		for _, x := range v {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
		}
		_, err := w.Write(raw)
		return err
	}
	if err := o.Moments.Mean(row); err != nil {
		return err
	}
	if err := put(row); err != nil {
		return err
	}
	// Many rows at a time: from a GPU one takes as long as many.
	step := max(1, readNumbers/o.Columns)
	rows := make([]float32, rowNumbers(o.Full, o.Columns, 0, min(step, o.Columns)))
	for first := 0; first < o.Columns; first += step {
		last := min(first+step, o.Columns)
		some := rows[:rowNumbers(o.Full, o.Columns, first, last)]
		if err := o.Moments.Rows(some, first, last); err != nil {
			return err
		}
		if err := put(some); err != nil {
			return err
		}
	}
	return nil
}

// readNumbers is about how many moments are read at a time.
const readNumbers = 1 << 18

// Spill writes what the statistics are now to a file in a folder, to be read as long as it is open; closing it removes it.
func (s *Statistics) Spill(dir string) (*StatisticsFile, error) {
	f, err := os.CreateTemp(dir, ".statistics-*")
	if err != nil {
		return nil, err
	}
	size, err := s.write(f)
	var spilt *StatisticsFile
	if err == nil {
		spilt, err = ReadStatistics(f, size)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), errors.Join(err, f.Close(), os.Remove(f.Name())))
	}
	spilt.Path, spilt.file, spilt.gone = f.Name(), f, true
	return spilt, nil
}
