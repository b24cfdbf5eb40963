package models

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Magic numbers of the IDX format: unsigned bytes in three dimensions and in one.
const (
	idxImages = 0x0803
	idxLabels = 0x0801
)

// encodeImages is the images as a gzipped IDX file. It has no time stamp: the same images make the same bytes.
func (d Digits) encodeImages() ([]byte, error) {
	return encodeIDX([]uint32{idxImages, uint32(d.Len()), Side, Side}, d.Images)
}

// encodeLabels is the labels as a gzipped IDX file.
func (d Digits) encodeLabels() ([]byte, error) {
	return encodeIDX([]uint32{idxLabels, uint32(d.Len())}, d.Labels)
}

func encodeIDX(header []uint32, body []byte) ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if err := binary.Write(z, binary.BigEndian, header); err != nil {
		return nil, err
	}
	if _, err := z.Write(body); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// decodeDigits reads what encodeImages and encodeLabels wrote. It is no general reader of the format (package calib has
// that one): it serves the files embedded here.
func decodeDigits(images, labels []byte) (Digits, error) {
	pixels, imagesErr := decodeIDX(images, idxImages, 16)
	values, labelsErr := decodeIDX(labels, idxLabels, 8)
	if err := errors.Join(imagesErr, labelsErr); err != nil {
		return Digits{}, fmt.Errorf("models: read stored digits: %w", err)
	}
	if len(pixels) != len(values)*Pixels {
		return Digits{}, fmt.Errorf("models: read stored digits: %d bytes of images for %d labels", len(pixels), len(values))
	}
	return Digits{pixels, values}, nil
}

func decodeIDX(packed []byte, magic uint32, header int) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		return nil, err
	}
	if len(raw) < header || binary.BigEndian.Uint32(raw) != magic {
		return nil, fmt.Errorf("not an IDX file with magic number %#x", magic)
	}
	return raw[header:], nil
}
