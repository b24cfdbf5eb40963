package cosetq

import (
	"errors"
	"fmt"

	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/rewrite"
)

// DefaultBits is the preset of [QuantizeOptions] that name none.
const DefaultBits = 4

// Methods of rounding, the default without data first.
const (
	RTN  = "rtn"  // to nearest
	LDLQ = "ldlq" // for the outputs that the data gives
)

// What may be rotated.
const (
	RotateAuto     = "auto"
	RotateNone     = "none"
	RotateHadamard = "hadamard"
)

// QuantizeOptions say how to quantize a model. The zero value rounds every weight that can be coded to 4 bits, without data.
type QuantizeOptions struct {
	Output    string `yaml:"-"` // file to write; "" is the input's name ending in .q.onnx
	Overwrite bool   `yaml:"-"` // replace the output if it exists

	// Options with a key can stand in a recipe; the keys are the names of the flags.
	Bits   int    `yaml:"bits"`   // preset: 2, 3 or 4; 0 leaves the choice to Codec or DefaultBits
	Codec  string `yaml:"codec"`  // codec instead of a preset, as in d4:4,4:g3,4,5,6
	Method string `yaml:"method"` // RTN or LDLQ; "" is RTN without data and LDLQ with

	// Layers gives some layers a codec of their own: each entry is PATTERN=CODEC, with a pattern as in Sites and a preset (2, 3
	// or 4) or a codec. Of several that match, the last counts.
	Layers []string `yaml:"layer"`

	// TargetBits, TargetBytes or MaxDrop, in the place of Bits or Codec, let each layer that Layers says nothing of have the
	// preset that is best for the whole: least loss with so many bits per weight, all stored bits counted; least loss in files
	// of so many bytes; or the smallest file whose metric, evaluated on Data, is worse than that of the float model by no more
	// than MaxDrop: bits per token, points of top-1 accuracy, or without tokens and labels the share of error in the outputs'
	// energy; 0 allows no loss. What a layer costs is measured on the outputs of the model, so Data is needed; with Statistics
	// as well it only serves to measure.
	TargetBits  float64  `yaml:"target-bpw"`
	TargetBytes ByteSize `yaml:"target-size"`
	MaxDrop     *float64 `yaml:"max-drop"`

	// Rotate is RotateNone, RotateHadamard or RotateAuto, which rotates the weights that lose less by it; "" is RotateAuto with
	// LDLQ and RotateNone without.
	Rotate string `yaml:"rotate"`

	Data       string `yaml:"data"`    // calibrate on this data first: a recipe, or random:N
	Samples    int    `yaml:"samples"` // number of samples of Data, 0 all
	Statistics string `yaml:"calib"`   // or use this file that Calibrate wrote

	Sites       rewrite.Options `yaml:",inline"`      // which weights
	MinCoverage float64         `yaml:"min-coverage"` // fail with Nothing when a smaller share of the weights can be quantized, 0 to 1
	Seed        uint64          `yaml:"seed"`         // of random data and of rotations; recorded in the report
	Threads     int             `yaml:"threads"`      // 0 takes all cores; the result does not depend on it
	Device      string          `yaml:"device"`       // that runs the model over Data and codes the weights: "" or cpu, or cuda. It shows in the rounding of statistics alone: with those of a file the result does not depend on it
	Progress    Progress        `yaml:"-"`            // may be nil

	// Resume goes on where a run with the same options was killed: what it had done lies in the folder OUTPUT.journal.
	Resume bool `yaml:"-"`
	// Shard, unless zero, makes this one of several runs that divide the weights; [Merge] writes the model when all are done.
	Shard Shard `yaml:"-"`

	recipeRead string // by ReadRecipe
	temporary  bool   // the folder of the output goes when the caller is done
}

// Reads are the files that quantizing the model at path input reads.
func (o *QuantizeOptions) Reads(input string) Reads {
	return Reads{Models: []string{input}, Data: []string{o.Data}, Files: []string{o.Statistics, o.recipeRead}}
}

// chosenCodec returns the codec of Codec or Bits, nil where a target chooses.
func (o *QuantizeOptions) chosenCodec() (*lattice.Codec, error) {
	if err := o.checkTarget(); err != nil || o.allocates() {
		return nil, err
	}
	if o.Codec == "" {
		bits := o.Bits
		if bits == 0 {
			bits = DefaultBits
		}
		c, err := lattice.Preset(bits)
		if err != nil {
			return nil, usage(err, "presets are --bits 2, 3 and 4; --codec names any other")
		}
		return c, nil
	}
	if o.Bits != 0 {
		return nil, usage(errors.New("--bits and --codec are both given"), "leave one of them out")
	}
	return parseCodec(o.Codec)
}

// check refuses options that make no sense, and fills in the method.
func (o *QuantizeOptions) check() error {
	if err := o.chooseMethod(); err != nil {
		return err
	}
	if o.Shard.Count > 0 && o.Data != "" && (o.Statistics == "" || !o.allocates()) {
		return usage(errors.New("--shard and --data are both given"), "calibrate once, and give the shares its file with --calib")
	}
	if err := checkThreads(o.Threads); err != nil {
		return err
	}
	if err := checkDevice(o.Device); err != nil {
		return err
	}
	if !(o.MinCoverage >= 0 && o.MinCoverage <= 1) { // not even NaN
		return usage(fmt.Errorf("--min-coverage %v is no share", o.MinCoverage), "it lies between 0 and 1")
	}
	return nil
}
