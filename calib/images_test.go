package calib

import (
	"bytes"
	"image"
	"image/color"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// The pictures in testdata: source.png is a drawn pattern; jpeg4xx.jpg is it saved by Pillow 13.0 at quality 90 with that
// chroma subsampling, jpeg4xx.png what Pillow decodes from it; the other .png are Pillow's resize and convert("L") of it.

func picture(t *testing.T, name string) bitmap {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, _, err := image.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	return rgb(m)
}

// differences gives the largest and the mean absolute difference.
func differences(t *testing.T, got, want bitmap) (largest int, mean float64) {
	t.Helper()
	if got.width != want.width || got.height != want.height || len(got.pix) != len(want.pix) {
		t.Fatalf("%d×%d×%d, want %d×%d×%d", got.width, got.height, got.channels, want.width, want.height, want.channels)
	}
	for i, w := range want.pix {
		d := int(got.pix[i]) - int(w)
		d = max(d, -d)
		largest = max(largest, d)
		mean += float64(d)
	}
	return largest, mean / float64(len(want.pix))
}

func TestResizeIsPillows(t *testing.T) {
	for _, c := range []struct {
		golden, filter string
		width, height  int
	}{
		{"bicubic28x20.png", "bicubic", 28, 20},
		{"bicubic97x83.png", "bicubic", 97, 83},
		{"bilinear28x20.png", "bilinear", 28, 20},
	} {
		got := resize(picture(t, "source.png"), c.width, c.height, filters[c.filter], true)
		if largest, _ := differences(t, got, picture(t, c.golden)); largest != 0 {
			t.Errorf("%s: differs from Pillow by up to %d", c.golden, largest)
		}
	}
}

// Colours of a palette count without their transparency, as all others do.
func TestTransparentPalette(t *testing.T) {
	m := image.NewPaletted(image.Rect(1, 1, 4, 3), color.Palette{color.NRGBA{200, 100, 50, 0}, color.NRGBA{7, 8, 9, 3}, color.Gray{12}})
	copy(m.Pix, []byte{0, 1, 2, 2, 1, 0})
	want := []byte{200, 100, 50, 7, 8, 9, 12, 12, 12, 12, 12, 12, 7, 8, 9, 200, 100, 50}
	if got := rgb(m); got.width != 3 || got.height != 2 || !bytes.Equal(got.pix, want) {
		t.Errorf("%d × %d %v, want %v", got.width, got.height, got.pix, want)
	}
}

func TestWithoutAntialiasOnlyNeighboursCount(t *testing.T) {
	b := bitmap{width: 8, height: 1, channels: 1, pix: []byte{0, 0, 0, 0, 0, 0, 0, 255}}
	got := resize(b, 1, 1, filters["bilinear"], false)
	if got.pix[0] != 0 {
		t.Errorf("a far pixel counts: %d", got.pix[0])
	}
	if got = resize(b, 1, 1, filters["bilinear"], true); got.pix[0] == 0 {
		t.Error("with antialias it should count")
	}
}

// Decoders may differ in the last bit of their cosine transform, but not in how they spread colours.
func TestJPEGIsPillows(t *testing.T) {
	for _, name := range []string{"jpeg444", "jpeg422", "jpeg420"} {
		largest, mean := differences(t, picture(t, name+".jpg"), picture(t, name+".png"))
		t.Logf("%s: largest difference %d, mean %.3f", name, largest, mean)
		if largest > 4 || mean > 0.2 {
			t.Errorf("%s: differs from Pillow by up to %d, %.3f on average", name, largest, mean)
		}
	}
}

// Halved colours are spread as libjpeg's "fancy upsampling" does: 9, 3, 3 and 1 sixteenths of the four samples around, rounded up and
// down in turns.
func TestFancyUpsampling(t *testing.T) {
	const width, height = 64, 16
	m := image.NewYCbCr(image.Rect(0, 0, width, height), image.YCbCrSubsampleRatio420)
	rng := rand.New(rand.NewPCG(1, 9))
	for i := range m.Cb {
		m.Cb[i] = byte(rng.Uint32())
	}
	p := newPlane(m, m.Cb)
	beside := func(at, size int) int { return min(max(at/2-1+at%2*2, 0), size-1) }
	for y := range height {
		got, want := make([]byte, width), make([]byte, width)
		p.row(got, y)
		near, far := m.Cb[y/2*m.CStride:], m.Cb[beside(y, height/2)*m.CStride:]
		for x := range want {
			at, next := x/2, beside(x, width/2)
			sum := 9*int(near[at]) + 3*int(far[at]) + 3*int(near[next]) + int(far[next])
			want[x] = byte((sum + 8 - x%2) / 16)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("row %d: %v, want %v", y, got, want)
		}
	}
}

func TestGrayIsPillows(t *testing.T) {
	want := picture(t, "gray.png")
	got := recolour(picture(t, "source.png"), "gray")
	for i, v := range got.pix {
		if w := want.pix[3*i]; v != w {
			t.Fatalf("pixel %d is %d, Pillow says %d", i, v, w)
		}
	}
}

func TestCropTakesTheCentre(t *testing.T) {
	b := bitmap{width: 5, height: 4, channels: 1, pix: make([]byte, 20)}
	for i := range b.pix {
		b.pix[i] = byte(i)
	}
	got := crop(b, 2)
	if want := []byte{7, 8, 12, 13}; string(got.pix) != string(want) {
		// 1.5 columns to spare on each side round to the even number 2
		t.Errorf("got %v, want %v", got.pix, want)
	}
}
