package cosetq

import (
	"strings"
	"testing"

	"github.com/cosetq/cosetq/models"
)

// Whatever was planned, what would exceed a target of bytes is not written.
func TestCheckSize(t *testing.T) {
	files, err := models.WriteQuickstart(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	m, err := OpenModel(files.Model)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	bytes, err := m.SavedBytes("q.onnx", saveOptions())
	if err != nil {
		t.Fatal(err)
	}
	for over, want := range map[int64]string{0: "", 3: "is missed by 3 bytes"} {
		o := &QuantizeOptions{TargetBytes: ByteSize(bytes - over)}
		err := o.checkSize(m, "q.onnx", saveOptions())
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%d bytes too many: %v, want %q", over, err, want)
		}
	}
}
