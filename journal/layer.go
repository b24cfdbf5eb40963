package journal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/quant"
)

// A layer file is
//
//	magic, length of the head, SHA-256 of the head, head (JSON), zeros up to a multiple of 4096, codes, gains
//
// with the numbers little-endian. The head says how long codes and gains are and what their checksum is.
const (
	magic      = "cosetqL1"
	prefixSize = len(magic) + 8 + sha256.Size
	page       = 4096
	maxHead    = 1 << 30
)

// Layer is the result for one weight.
type Layer struct {
	// Source identifies the weight that was coded: see Digest.
	Source string
	// Meta is whatever the caller wants to remember beside the code, as JSON.
	Meta json.RawMessage
	// Matrix is the code; nil where the weight could not be coded.
	Matrix *quant.Matrix
}

// head is the JSON part of a layer file. The matrix stands there without its codes and gains. The name of the weight is bytes, which
// JSON has in base64: it may be no UTF-8, and would not survive as text.
type head struct {
	Weight       []byte          `json:"weight"`
	Source       string          `json:"source"`
	Meta         json.RawMessage `json:"meta,omitempty"`
	Codec        string          `json:"codec,omitempty"`
	Matrix       *quant.Matrix   `json:"matrix,omitempty"`
	Codes, Gains int64
	SHA256       string `json:"sha256,omitempty"`
}

// DamagedError reports a layer file that is not as it was written.
type DamagedError struct {
	Path string
	Err  error
}

func (e *DamagedError) Error() string { return fmt.Sprintf("%s is damaged: %v", e.Path, e.Err) }
func (e *DamagedError) Unwrap() error { return e.Err }

// Put stores the result for a weight. The file is complete when Put returns, but on the disk only a while later: Put waits
// where too many are not, and returns the error of earlier ones.
func (j *Journal) Put(weight string, l Layer) error {
	h := head{Weight: []byte(weight), Source: l.Source, Meta: l.Meta}
	var codes, gains []byte
	if l.Matrix != nil {
		m := *l.Matrix
		codes, gains = m.Codes, m.Gains
		h.Codec = m.Codec.String()
		m.Codes, m.Gains, m.Codec = nil, nil, nil
		h.Matrix, h.Codes, h.Gains, h.SHA256 = &m, int64(len(codes)), int64(len(gains)), sum(codes, gains)
	}
	text, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("journal: weight %q: %w", weight, err)
	}
	prefix := append([]byte(magic), make([]byte, 8)...)
	binary.LittleEndian.PutUint64(prefix[len(magic):], uint64(len(text)))
	checksum := sha256.Sum256(text)
	prefix = append(prefix, checksum[:]...)
	zeros := make([]byte, -(prefixSize+len(text))&(page-1))
	name := layerName(weight)
	if err := j.put(name, prefix, text, zeros, codes, gains); err != nil {
		return err
	}
	return j.flusher.add(filepath.Join(j.dir, name))
}

// Get returns the result for a weight, or nil when there is none. Codes and gains of the matrix are views of the file, valid
// until Close. The error is a *DamagedError when the file cannot be what Put wrote.
func (j *Journal) Get(weight string) (*Layer, error) {
	path := filepath.Join(j.dir, layerName(weight))
	view, err := mapFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	l, err := j.parse(weight, view.data)
	if err != nil {
		return nil, errors.Join(&DamagedError{path, err}, view.close())
	}
	if l.Matrix != nil {
		l.Matrix.Release = view.release
	}
	view.release()
	j.mapped.add(view)
	return l, nil
}

// Drop forgets the result for a weight.
func (j *Journal) Drop(weight string) error {
	return os.Remove(filepath.Join(j.dir, layerName(weight)))
}

// parse reads and checks all of a layer file.
func (j *Journal) parse(weight string, b []byte) (*Layer, error) {
	if len(b) < prefixSize || string(b[:len(magic)]) != magic {
		return nil, errors.New("it is no layer file")
	}
	size := binary.LittleEndian.Uint64(b[len(magic):])
	if size > maxHead || size > uint64(len(b)-prefixSize) {
		return nil, fmt.Errorf("a head of %d bytes does not fit %d", size, len(b))
	}
	text := b[prefixSize:][:size]
	if checksum := sha256.Sum256(text); !bytes.Equal(checksum[:], b[len(magic)+8:prefixSize]) {
		return nil, errors.New("the head has another checksum")
	}
	var h head
	if err := json.Unmarshal(text, &h); err != nil {
		return nil, err
	}
	if string(h.Weight) != weight {
		return nil, fmt.Errorf("it is of weight %q", h.Weight)
	}
	l := &Layer{Source: h.Source, Meta: h.Meta, Matrix: h.Matrix}
	start := (prefixSize + len(text) + page - 1) &^ (page - 1)
	if start > len(b) {
		return nil, errors.New("it is truncated")
	}
	data := b[start:]
	if h.Codes < 0 || h.Gains < 0 || h.Codes > int64(len(data)) || h.Gains != int64(len(data))-h.Codes {
		return nil, fmt.Errorf("%d bytes of codes and %d of gains in %d", h.Codes, h.Gains, len(data))
	}
	if l.Matrix == nil {
		return l, nil
	}
	m := l.Matrix
	m.Codes, m.Gains = data[:h.Codes:h.Codes], data[h.Codes:]
	if sum(m.Codes, m.Gains) != h.SHA256 {
		return nil, errors.New("the codes have another checksum")
	}
	var err error
	if m.Codec, err = j.codecs.parse(h.Codec); err != nil {
		return nil, err
	}
	return l, m.Validate()
}

func sum(codes, gains []byte) string {
	h := sha256.New()
	h.Write(codes)
	h.Write(gains)
	return hex.EncodeToString(h.Sum(nil))
}

// layerName turns the name of a weight, which may hold anything, into that of a file.
func layerName(weight string) string {
	s := sha256.Sum256([]byte(weight))
	return hex.EncodeToString(s[:16]) + layerEnding
}

// Stored is a weight W [N × K] whose numbers can be read in the order in which a model stores them, by rows or by columns.
type Stored interface {
	Dims() (n, k int)
	Columns() bool
	// Numbers writes those from the given one on to dst. It is safe for concurrent use.
	Numbers(dst []float32, from int64) error
}

// Digest sums up so many numbers by themselves, a few such pieces at the same time.
const (
	digestNumbers = 1 << 18
	digestPieces  = 4
)

// Digest identifies the numbers of a weight: SHA-256 over its shape, how it is stored and SHA-256 of each piece. It returns when nobody
// reads the weight any more.
func Digest(ctx context.Context, w Stored) (string, error) {
	n, k := w.Dims()
	all := int64(n) * int64(k)
	count := (all + digestNumbers - 1) / digestNumbers
	sums := make([]byte, count*sha256.Size)
	var next atomic.Int64
	var pieces errgroup.Group
	for range digestPieces {
		pieces.Go(func() error {
			values, raw := make([]float32, min(all, digestNumbers)), make([]byte, 4*min(all, digestNumbers))
			for {
				piece := next.Add(1) - 1
				if piece >= count {
					return nil
				}
				from := piece * digestNumbers
				v := values[:min(digestNumbers, all-from)]
				err := ctx.Err()
				if err == nil {
					err = w.Numbers(v, from)
				}
				if err != nil {
					next.Store(count) // the others end
					return err
				}
				for i, x := range v {
					binary.LittleEndian.PutUint32(raw[4*i:], math.Float32bits(x))
				}
				sum := sha256.Sum256(raw[:4*len(v)])
				copy(sums[piece*sha256.Size:], sum[:])
			}
		})
	}
	if err := pieces.Wait(); err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintf(h, "%d %d %t %d ", n, k, w.Columns(), digestNumbers)
	h.Write(sums)
	return hex.EncodeToString(h.Sum(nil)), nil
}

// codecs makes each codec once: its tables can be large.
type codecs struct {
	sync.Mutex
	known map[string]*lattice.Codec
}

func (c *codecs) parse(text string) (*lattice.Codec, error) {
	c.Lock()
	defer c.Unlock()
	if codec := c.known[text]; codec != nil {
		return codec, nil
	}
	codec, err := lattice.ParseCodec(text)
	if err != nil {
		return nil, err
	}
	if c.known == nil {
		c.known = map[string]*lattice.Codec{}
	}
	c.known[text] = codec
	return codec, nil
}
