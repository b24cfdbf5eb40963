package cosetq

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/rewrite"
)

// codecOf holds the codec of every weight to be coded.
type codecOf map[*rewrite.Weight]*lattice.Codec

// oneCodec gives every candidate the same codec.
func oneCodec(sites []rewrite.Site, codec *lattice.Codec) codecOf {
	all := codecOf{}
	for _, w := range weightsOf(sites) {
		all[w] = codec
	}
	return all
}

// layerCodecs gives the weights of the candidates the codecs of o.Layers, and the standard one to all others.
func (o *QuantizeOptions) layerCodecs(sites []rewrite.Site, standard *lattice.Codec) (codecOf, error) {
	all := oneCodec(sites, standard)
	parsed := map[string]*lattice.Codec{} // that equal ones be one
	if standard != nil {
		parsed[standard.String()] = standard
	}
	for _, entry := range o.Layers {
		at := strings.LastIndex(entry, "=")
		if at < 0 {
			return nil, usage(fmt.Errorf("--layer %q has no =", entry), "give PATTERN=CODEC, as in '*/lm_head/*=4' or 'index:0-3=d4:4,4:g3,4,5,6'")
		}
		codec, err := presetOrCodec(entry[at+1:])
		if err != nil {
			return nil, fmt.Errorf("--layer %q: %w", entry, err)
		}
		if p := parsed[codec.String()]; p != nil {
			codec = p
		}
		parsed[codec.String()] = codec
		matched, err := rewrite.Select(sites, entry[:at])
		if err != nil {
			return nil, err
		}
		found := false
		for _, i := range matched {
			if s := &sites[i]; s.Status == rewrite.Candidate {
				found, all[s.Weight] = true, codec
			}
		}
		if !found {
			return nil, usage(fmt.Errorf("--layer %q: none of the %d layers that it matches is to be quantized", entry, len(matched)), "`cosetq inspect MODEL --layers` lists the names and why some are skipped")
		}
	}
	return all, nil
}

// presetOrCodec reads a number of bits or a codec.
func presetOrCodec(text string) (*lattice.Codec, error) {
	bits, err := strconv.Atoi(text)
	if err != nil {
		return parseCodec(text)
	}
	c, err := lattice.Preset(bits)
	if err != nil {
		return nil, usage(err, "presets are 2, 3 and 4; or write a codec, as in d4:4,4:g3,4,5,6")
	}
	return c, nil
}

func parseCodec(text string) (*lattice.Codec, error) {
	c, err := lattice.ParseCodec(text)
	if err != nil {
		return nil, usage(err, "a codec is a lattice, radices and gains, as in d4:4,4:g3,4,5,6")
	}
	return c, nil
}

// names lists the different codecs, the one with most weights first.
func (c codecOf) names() string {
	count := map[string]int{}
	for w, codec := range c {
		n, k := w.Dims()
		count[codec.String()] += n * k
	}
	var names []string
	for name := range count {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		if d := count[b] - count[a]; d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	return strings.Join(names, " and ")
}
