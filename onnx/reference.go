package onnx

import (
	"os"
	"path/filepath"
	"strconv"
)

// ReferToFile turns the initializers of the main graph whose raw data, minSize bytes or more, lie in the file of the model
// into external ones that point into that very file. What Marshal then returns holds no weights: a runtime that looks for
// external data in the folder of the model, and is told which that is, maps them from the file as it stands. It returns
// how many it turned: none for a model that was not opened from a file, or through a symbolic link, because a runtime may
// refuse to follow one.
func (m *Model) ReferToFile(minSize int64) int {
	if m.doc == nil || m.doc.path == "" || m.Graph == nil {
		return 0
	}
	if info, err := os.Lstat(m.doc.path); err != nil || !info.Mode().IsRegular() {
		return 0
	}
	turned := 0
	for _, t := range m.Graph.Initializers {
		if t.IsExternal() || t.Data != nil || int64(len(t.RawData)) < minSize {
			continue
		}
		offset := m.doc.offset(t.RawData)
		if offset < 0 {
			continue
		}
		t.ExternalData = []*Property{
			{Key: "location", Value: filepath.Base(m.doc.path)},
			{Key: "offset", Value: strconv.FormatInt(offset, 10)},
			{Key: "length", Value: strconv.Itoa(len(t.RawData))},
		}
		t.RawData, t.DataLocation = nil, LocationExternal
		turned++
	}
	return turned
}
