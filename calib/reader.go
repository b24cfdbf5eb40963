// Package calib reads the data that models are calibrated and judged with.
//
// A data recipe, a short YAML file, says where the data lies and how it becomes model inputs; [Open] turns it into a
// [Reader] for the inputs of one model. Samples are read one by one when they are asked for, so memory does not grow with
// their number, and reading them again gives the same bytes. The kinds of data:
//
//	idx     images and labels in the MNIST format, also gzipped
//	npz     an array of images or of feature vectors in a NumPy archive, with labels; or an array for each input of the model
//	images  a folder of JPEG and PNG pictures with a CSV file of labels
//	bytes   any file as text; token id = byte value
//	tokens  token ids in a .npy, .npz or raw file
//
// The package runs no model and computes no metric.
package calib

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strings"

	"github.com/cosetq/cosetq/tensor"
)

// Sample is one unit of data, as a batch of one.
type Sample struct {
	// Inputs holds one value for every input of the model.
	Inputs map[string]*tensor.Tensor
	// Label is the class, or -1 when the data has none.
	Label int
	// Targets holds, for token data, the token that follows each token of the window; nil for other data.
	Targets []int
}

// Reader gives samples by number. It may be used by several goroutines at once.
type Reader interface {
	// Len is the number of samples.
	Len() int
	// Sample reads sample i, 0 ≤ i < Len(). The same i always gives the same sample.
	Sample(i int) (*Sample, error)
	// Random tells that the data is made up, so that reports can say so.
	Random() bool
	io.Closer
}

// Options say how much data to read.
type Options struct {
	// Limit bounds the number of samples; 0 takes all. For token data, Limit windows are spread evenly over the file.
	Limit int
	// Seed makes random data; the same seed gives the same data.
	Seed uint64
}

// Open reads the recipe at path (or the spelling random:N, see [NewRandom]; nothing else ever makes data up) and prepares its data for a model with the
// given inputs. Problems of the recipe and its data come back as a [*RecipeError].
func Open(path string, inputs []tensor.Spec, o Options) (Reader, error) {
	if o.Limit < 0 {
		return nil, &RecipeError{Msg: fmt.Sprintf("a limit of %d samples was asked for; give a positive number, or 0 for all", o.Limit)}
	}
	if count, ok := strings.CutPrefix(path, "random:"); ok {
		n, given, err := parseRandom(count)
		if err != nil {
			return nil, err
		}
		return NewRandom(limited(int64(n), o), inputs, given, o.Seed)
	}
	r, err := ReadRecipe(path)
	if err != nil {
		return nil, err
	}
	return r.Open(inputs, o)
}

// Open prepares the recipe's data for a model with the given inputs.
func (r *Recipe) Open(inputs []tensor.Spec, o Options) (Reader, error) {
	switch r.Kind {
	case "idx":
		return openIDX(r, inputs, o)
	case "npz":
		return openNPZ(r, inputs, o)
	case "images":
		return openImages(r, inputs, o)
	case "bytes", "tokens":
		return openTokens(r, inputs, o)
	}
	return nil, r.fail("kind", "%q is not known%s", r.Kind, didYouMean(r.Kind, kinds()))
}

// limited is the number of samples to give out of count.
func limited(count int64, o Options) int {
	if o.Limit > 0 {
		count = min(count, int64(o.Limit))
	}
	return int(count)
}

// source is a generator whose values depend on the seed and the sample only.
func source(seed, sample uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, sample)) }
