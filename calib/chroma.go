package calib

import "image"

// Go's decoder keeps the halved colour planes of a JPEG picture and repeats each of their pixels. libjpeg, behind Pillow
// and nearly every training pipeline, interpolates them ("fancy upsampling"): each new pixel is 3/4 of the nearer and 1/4
// of the farther sample, per halved direction. Models see the difference, so this file does what libjpeg does.

// fromYCbCr converts a picture into b.
func fromYCbCr(b bitmap, m *image.YCbCr) {
	cb, cr := newPlane(m, m.Cb), newPlane(m, m.Cr)
	rowB, rowR := make([]byte, b.width), make([]byte, b.width)
	for y := range b.height {
		cb.row(rowB, y)
		cr.row(rowR, y)
		luma := m.Y[y*m.YStride:]
		out := b.pix[3*y*b.width:]
		for x := range b.width {
			convertPixel(out[3*x:3*x+3], int32(luma[x]), int32(rowB[x])-128, int32(rowR[x])-128)
		}
	}
}

// convertPixel is libjpeg's conversion in 16-bit fixed point.
func convertPixel(out []byte, y, cb, cr int32) {
	const half = 1 << 15
	out[0] = clamp(y + (91881*cr+half)>>16)
	out[1] = clamp(y + (-22554*cb-46802*cr+half)>>16)
	out[2] = clamp(y + (116130*cb+half)>>16)
}

func clamp(v int32) byte { return byte(min(max(v, 0), 255)) }

// plane is a colour plane with its sampling.
type plane struct {
	pix           []byte
	stride        int
	width, height int     // of the plane
	halfX, halfY  bool    // halved and to be interpolated
	stepX, stepY  int     // pixels of the picture per sample, where it is repeated instead
	rows          []int32 // of the plane, interpolated vertically (scaled by 4 then)
}

func newPlane(m *image.YCbCr, pix []byte) *plane {
	w, h := m.Rect.Dx(), m.Rect.Dy()
	p := &plane{pix: pix, stride: m.CStride, stepX: 1, stepY: 1}
	switch m.SubsampleRatio {
	case image.YCbCrSubsampleRatio422:
		p.halfX, p.stepX = true, 2
	case image.YCbCrSubsampleRatio420:
		p.halfX, p.halfY, p.stepX, p.stepY = true, true, 2, 2
	case image.YCbCrSubsampleRatio440:
		p.halfY, p.stepY = true, 2
	case image.YCbCrSubsampleRatio411:
		p.stepX = 4
	case image.YCbCrSubsampleRatio410:
		p.stepX, p.stepY = 4, 2
	}
	p.width, p.height = (w+p.stepX-1)/p.stepX, (h+p.stepY-1)/p.stepY
	// libjpeg repeats when a plane is too narrow to interpolate.
	p.halfX = p.halfX && p.width > 2
	p.halfY = p.halfY && (p.halfX || p.stepX == 1)
	p.rows = make([]int32, p.width)
	return p
}

// row writes row y of the picture.
func (p *plane) row(out []byte, y int) {
	near := min(y/p.stepY, p.height-1)
	for x := range p.rows {
		p.rows[x] = int32(p.pix[near*p.stride+x])
	}
	if p.halfY {
		far := min(max(near-1+2*(y%2), 0), p.height-1)
		for x := range p.rows {
			p.rows[x] = 3*p.rows[x] + int32(p.pix[far*p.stride+x])
		}
	}
	for x := range out {
		at := min(x/p.stepX, p.width-1)
		sum := p.rows[at]
		if p.halfX {
			sum = 3*sum + p.rows[min(max(at-1+2*(x%2), 0), p.width-1)]
		}
		// Neighbours round alternately up and down, as in libjpeg, to keep the mean.
		switch {
		case p.halfX && p.halfY:
			sum = (sum + int32(8-x%2)) >> 4
		case p.halfX:
			sum = (sum + int32(1+x%2)) >> 2
		case p.halfY:
			sum = (sum + int32(1+y%2)) >> 2
		}
		out[x] = byte(sum)
	}
}
