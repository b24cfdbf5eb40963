package calib

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	_ "image/jpeg" // registers the decoder
	_ "image/png"  // registers the decoder
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cosetq/cosetq/internal/regularfile"
	"github.com/cosetq/cosetq/tensor"
)

// imageReader decodes one picture file per sample.
type imageReader struct {
	recipe *Recipe
	in     tensor.Spec
	files  []string
	labels []int
	table  [][256]float32
}

func openImages(r *Recipe, inputs []tensor.Spec, o Options) (Reader, error) {
	in, err := r.chooseInput(inputs, nil)
	if err != nil {
		return nil, err
	}
	x := &imageReader{recipe: r, in: in}
	channels := int64(3)
	if r.Pixel.Color == "gray" {
		channels = 1
	}
	scale, err := r.newScaler(channels)
	if err != nil {
		return nil, err
	}
	x.table = scale.table()
	if x.files, x.labels, err = r.pictures(); err != nil {
		return nil, err
	}
	if r.Resize != nil && r.Resize.Crop > 0 {
		side := int64(r.Resize.Crop)
		if err := r.checkFit("resize.crop", in, r.imageShape(side, side, channels)); err != nil {
			return nil, err
		}
	}
	n := limited(int64(len(x.files)), o)
	x.files = x.files[:n]
	return x, nil
}

// byteOrderMark begins text files that spreadsheets and editors on Windows write.
const byteOrderMark = "\ufeff"

// pictures lists the pictures, with their labels if there are any.
func (r *Recipe) pictures() (files []string, labels []int, err error) {
	if r.Labels != "" {
		return r.readLabelCSV()
	}
	files, err = r.listImages()
	return files, nil, err
}

// readLabelCSV reads lines of file,label under a header that says so. Every file must exist, so that a run of hours does
// not end at the last one.
func (r *Recipe) readLabelCSV() (files []string, labels []int, err error) {
	f, err := regularfile.Open(r.resolve(r.Labels))
	if err != nil {
		return nil, nil, r.fail("labels", "%w", err)
	}
	defer f.Close()
	text := bufio.NewReader(f)
	if start, _ := text.Peek(len(byteOrderMark)); string(start) == byteOrderMark {
		_, _ = text.Discard(len(byteOrderMark)) // it is in the buffer
	}
	rows := csv.NewReader(text)
	rows.FieldsPerRecord = 2
	rows.ReuseRecord = true
	for line := 1; ; line++ {
		row, err := rows.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, nil, r.fail("labels", "%s: %w; each line is file,label", r.Labels, err)
		}
		if line == 1 {
			if row[0] != "file" || row[1] != "label" {
				return nil, nil, r.fail("labels", "%s starts with %q; its first line is file,label", r.Labels, strings.Join(row, ","))
			}
			continue
		}
		label, err := strconv.Atoi(row[1])
		if err != nil || label < 0 {
			return nil, nil, r.fail("labels", "%s:%d: label %q is no class number", r.Labels, line, row[1])
		}
		path := filepath.Join(r.resolve(r.Dir), filepath.FromSlash(row[0]))
		if _, err := os.Stat(path); err != nil {
			return nil, nil, r.fail("labels", "%s:%d: %w", r.Labels, line, err)
		}
		files, labels = append(files, path), append(labels, label)
	}
	if len(files) == 0 {
		return nil, nil, r.fail("labels", "%s names no files", r.Labels)
	}
	return files, labels, nil
}

// listImages takes every picture of the folder in alphabetical order, for data without labels.
func (r *Recipe) listImages() ([]string, error) {
	entries, err := os.ReadDir(r.resolve(r.Dir))
	if err != nil {
		return nil, r.fail("dir", "%w", err)
	}
	var files []string
	for _, e := range entries {
		ext := strings.ToLower(filepath.Ext(e.Name()))
		if slices.Contains([]string{".jpg", ".jpeg", ".png"}, ext) {
			files = append(files, filepath.Join(r.resolve(r.Dir), e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, r.fail("dir", "%s holds no .jpg, .jpeg or .png file", r.Dir)
	}
	return files, nil
}

func (x *imageReader) Len() int     { return len(x.files) }
func (x *imageReader) Random() bool { return false }
func (x *imageReader) Close() error { return nil }

func (x *imageReader) Sample(i int) (*Sample, error) {
	b, err := x.load(x.files[i])
	if err != nil {
		return nil, x.recipe.fail("dir", "%s: %w", x.files[i], err)
	}
	shape := x.recipe.imageShape(int64(b.height), int64(b.width), int64(b.channels))
	if err := x.recipe.checkFit("resize", x.in, shape); err != nil {
		return nil, err
	}
	values := x.recipe.layOut(b.pix, int64(b.width*b.height), x.table)
	t, err := x.recipe.encode(values, x.in.Type, shape)
	if err != nil {
		return nil, err
	}
	return &Sample{Inputs: map[string]*tensor.Tensor{x.in.Name: t}, Label: labelOf(x.labels, i)}, nil
}

// load decodes a picture and brings it to the recipe's size and colours.
func (x *imageReader) load(path string) (bitmap, error) {
	f, err := regularfile.Open(path)
	if err != nil {
		return bitmap{}, err
	}
	defer f.Close()
	config, _, err := image.DecodeConfig(bufio.NewReader(f))
	if err != nil {
		return bitmap{}, fmt.Errorf("is no readable JPEG or PNG picture: %w", err)
	}
	if config.Width < 1 || config.Height < 1 || config.Width > maxSide || config.Height > maxSide {
		return bitmap{}, fmt.Errorf("is %d × %d pixels; sides lie between 1 and %d", config.Width, config.Height, maxSide)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return bitmap{}, err
	}
	picture, _, err := image.Decode(bufio.NewReader(f))
	if err != nil {
		return bitmap{}, fmt.Errorf("is no readable JPEG or PNG picture: %w", err)
	}
	b := rgb(picture)
	if x.recipe.Resize != nil {
		if b, err = x.recipe.Resize.apply(b); err != nil {
			return bitmap{}, err
		}
	}
	return recolour(b, x.recipe.Pixel.Color), nil
}

// apply scales and crops. The longer side is rounded down, as torchvision does.
func (z *Resize) apply(b bitmap) (bitmap, error) {
	if z.Shorter > 0 {
		short := min(b.width, b.height)
		width, height := z.Shorter*b.width/short, z.Shorter*b.height/short
		if max(width, height) > maxSide {
			return b, fmt.Errorf("is %d × %d pixels, too long and thin to scale to a shorter side of %d", b.width, b.height, z.Shorter)
		}
		b = resize(b, width, height, filters[z.Filter], z.Antialias == nil || *z.Antialias)
	}
	if z.Crop == 0 {
		return b, nil
	}
	if b.width < z.Crop || b.height < z.Crop {
		return b, errors.New("is smaller than resize.crop; give resize.shorter to scale it up")
	}
	return crop(b, z.Crop), nil
}

// rgb takes the colours without their transparency, as Pillow's convert("RGB") does.
func rgb(m image.Image) bitmap {
	r := m.Bounds()
	b := bitmap{width: r.Dx(), height: r.Dy(), channels: 3, pix: make([]byte, 3*r.Dx()*r.Dy())}
	switch m := m.(type) {
	case *image.YCbCr:
		fromYCbCr(b, m)
		return b
	case *image.Paletted: // drawn, colours that are transparent would be black
		for i := range b.width * b.height {
			at := m.PixOffset(r.Min.X+i%b.width, r.Min.Y+i/b.width)
			c := color.NRGBAModel.Convert(m.Palette[m.Pix[at]]).(color.NRGBA)
			b.pix[3*i], b.pix[3*i+1], b.pix[3*i+2] = c.R, c.G, c.B
		}
		return b
	}
	n := image.NewNRGBA(image.Rect(0, 0, b.width, b.height))
	draw.Draw(n, n.Bounds(), m, r.Min, draw.Src)
	for i := range b.width * b.height {
		copy(b.pix[3*i:3*i+3], n.Pix[4*i:])
	}
	return b
}

// recolour turns RGB into the recipe's colours; gray is ITU-R 601 luma as in Pillow.
func recolour(b bitmap, color string) bitmap {
	switch color {
	case "bgr":
		for i := 0; i < len(b.pix); i += 3 {
			b.pix[i], b.pix[i+2] = b.pix[i+2], b.pix[i]
		}
	case "gray":
		gray := make([]byte, len(b.pix)/3)
		for i := range gray {
			gray[i] = byte((19595*int(b.pix[3*i]) + 38470*int(b.pix[3*i+1]) + 7471*int(b.pix[3*i+2]) + 1<<15) >> 16)
		}
		b.channels, b.pix = 1, gray
	}
	return b
}
