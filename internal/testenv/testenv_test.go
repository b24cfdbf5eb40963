package testenv

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"testing"
)

func TestRequire(t *testing.T) {
	t.Setenv(EnvRequire, "data, slow")
	for what, want := range map[string]bool{"data": true, "slow": true, "ort": false, "": false} {
		if got := Require(what); got != want {
			t.Errorf("Require(%q) = %v, want %v", what, got, want)
		}
	}
}

func TestDataSkipsWhenAbsent(t *testing.T) {
	t.Setenv(EnvData, t.TempDir())
	t.Setenv(EnvRequire, "")
	skipped := false
	t.Run("absent", func(t *testing.T) {
		defer func() { skipped = t.Skipped() }()
		Data(t, "models/none.onnx")
	})
	if !skipped {
		t.Error("a missing data file did not skip the test")
	}
}

func TestGunzip(t *testing.T) {
	dir := t.TempDir()
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write([]byte("model"))
	z.Close()
	src, dst := filepath.Join(dir, "m.gz"), filepath.Join(dir, "cache", "m")
	if err := os.WriteFile(src, packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := gunzip(dst, src); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dst); err != nil || string(got) != "model" {
		t.Fatalf("unpacked %q, %v", got, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "cache", "unpack-*")); len(left) != 0 {
		t.Errorf("temporary files left: %v", left)
	}
}
