package quant_test

import (
	"context"
	"testing"

	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/quant"
)

// The sizes of what is stored follow from the codec and the shape, as docs/format.md says; a reader can tell a cut file by them.
func TestLayoutSizes(t *testing.T) {
	for _, tt := range []struct {
		codec           string
		perByte, stored int // gain indices in a byte, and bytes of codes per group
	}{
		{"d4:4,4:g3,4,5,6", 4, 4}, {"d4:2,4:g1,2", 8, 3}, {"e8:3,3:g1,2,3,4,5", 2, 4}, {"z1:16", 1, 4},
	} {
		codec, err := lattice.ParseCodec(tt.codec)
		if err != nil {
			t.Fatal(err)
		}
		r, err := quant.Quantize(context.Background(), gaussian(37, 100, 3), quant.Options{Codec: codec})
		if err != nil {
			t.Fatal(err)
		}
		m, l := r.Matrix, quant.LayoutOf(codec)
		if len(l.Slots) != codec.GroupIndices() || l.Elements*l.ElementBytes != tt.stored {
			t.Errorf("%s: %d slots in %d elements of %d bytes", tt.codec, len(l.Slots), l.Elements, l.ElementBytes)
		}
		for i, s := range l.Slots {
			if level := i / codec.Blocks(); s.Element >= l.Elements || s.Base+codec.Leaders(level).Len() > len(l.Codebook)/l.Dim {
				t.Errorf("%s: slot %d is %+v, outside of what is stored", tt.codec, i, s)
			}
		}
		if m.Groups != 13 || m.Tiles() != (37+m.Tile-1)/m.Tile || len(m.Codes) != m.Tiles()*m.Groups*tt.stored*m.Tile {
			t.Errorf("%s: %d tiles of %d rows, %d groups and %d bytes of codes", tt.codec, m.Tiles(), m.Tile, m.Groups, len(m.Codes))
		}
		if want := (13 + tt.perByte - 1) / tt.perByte; len(codec.Gains()) > 1 && (l.GainBytes(m.Groups) != want || len(m.Gains) != m.Tiles()*want*m.Tile) {
			t.Errorf("%s: %d bytes of gains per row, want %d; %d in all", tt.codec, l.GainBytes(m.Groups), want, len(m.Gains))
		}
	}
}
