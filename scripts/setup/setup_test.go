package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/internal/ortversions"
)

const testVersion = "9.9.9"

// The library as each source ships it.
const (
	wheelLibrary   = "the wheel's library"
	npmLibrary     = "npm's library"
	releaseLibrary = "the release's library"
)

func sumOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

func newFetcher(t *testing.T) fetcher {
	return fetcher{
		build: filepath.Join(t.TempDir(), "build"),
		goos:  "linux",
		arch:  "amd64",
		pins: pinTable{
			{testVersion, "amd64", "pip", sumOf([]byte(wheelLibrary))},
			{testVersion, "amd64", "npm", sumOf([]byte(npmLibrary))},
		},
		log: io.Discard,
	}
}

func makeWheel(t *testing.T, path, library string) {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, content := range map[string]string{
		"onnxruntime/__init__.py":                           "",
		"onnxruntime/capi/libonnxruntime.so." + testVersion: library,
	} {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func makeTarball(t *testing.T, path, member, library string) {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, entry := range []struct{ name, content string }{{"package/package.json", "{}"}, {member, library}} {
		err := w.WriteHeader(&tar.Header{Name: entry.name, Mode: 0o644, Size: int64(len(entry.content)), Typeflag: tar.TypeReg})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, entry.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// client puts a program into the folder bin that copies archive into its working directory, as a package client would.
// Without an archive it fails.
func client(t *testing.T, bin, name, archive string) {
	t.Helper()
	script := "#!/bin/sh\necho no network >&2\nexit 1\n"
	if archive != "" {
		script = fmt.Sprintf("#!/bin/sh\nexec /bin/cp %q .\n", archive)
	}
	if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
}

func wantLibrary(t *testing.T, f fetcher, content string) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(f.build, "ort", libraryName))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != content {
		t.Errorf("installed %q, want %q", got, content)
	}
	if left, _ := filepath.Glob(filepath.Join(f.build, ".fetch-*")); len(left) > 0 {
		t.Errorf("temporary folders are left: %v", left)
	}
}

func TestSources(t *testing.T) {
	archives := t.TempDir()
	wheel := filepath.Join(archives, "onnxruntime-9.9.9.whl")
	makeWheel(t, wheel, wheelLibrary)
	tampered := filepath.Join(archives, "onnxruntime-9.9.9-tampered.whl")
	makeWheel(t, tampered, "something else")
	npm := filepath.Join(archives, "onnxruntime-node-9.9.9.tgz")
	makeTarball(t, npm, "package/bin/napi-v6/linux/x64/libonnxruntime.so.1", npmLibrary)

	for _, tt := range []struct {
		name    string
		clients map[string]string // program → what it downloads; empty: it fails
		want    string            // the installed library; empty: an error
		errs    []string
	}{
		{"python", map[string]string{"python3": wheel}, wheelLibrary, nil},
		{"pip without python", map[string]string{"pip": wheel}, wheelLibrary, nil},
		{"python without pip, npm", map[string]string{"python3": "", "npm": npm}, npmLibrary, nil},
		{"npm alone", map[string]string{"npm": npm}, npmLibrary, nil},
		{"tampered wheel, npm", map[string]string{"python3": tampered, "npm": npm}, npmLibrary, nil},
		{"tampered wheel", map[string]string{"python3": tampered}, "", []string{"not the pinned one", "ORT_SHA256"}},
		{"no network", map[string]string{"python3": "", "npm": ""}, "", []string{"no network"}},
		{"nothing", nil, "", []string{"npm is not installed", "python3-pip", "release page"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bin := t.TempDir()
			for name, archive := range tt.clients {
				client(t, bin, name, archive)
			}
			t.Setenv("PATH", bin)
			f := newFetcher(t)
			err := f.ensure(testVersion, "ort")
			if tt.want != "" {
				if err != nil {
					t.Fatal(err)
				}
				wantLibrary(t, f, tt.want)
				// Done once, it needs no client any more.
				t.Setenv("PATH", "")
				if err := f.ensure(testVersion, "ort"); err != nil {
					t.Errorf("second time: %v", err)
				}
				return
			}
			if err == nil {
				t.Fatal("no error")
			}
			for _, part := range tt.errs {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error lacks %q:\n%v", part, err)
				}
			}
			if _, err := os.Stat(filepath.Join(f.build, "ort")); err == nil {
				t.Error("something was installed")
			}
		})
	}
}

// A library that was changed after its installation is fetched again.
func TestRepair(t *testing.T) {
	archive := filepath.Join(t.TempDir(), "onnxruntime-9.9.9.whl")
	makeWheel(t, archive, wheelLibrary)
	bin := t.TempDir()
	client(t, bin, "pip", archive)
	t.Setenv("PATH", bin)
	f := newFetcher(t)
	for range 2 {
		if err := f.ensure(testVersion, "ort"); err != nil {
			t.Fatal(err)
		}
		wantLibrary(t, f, wheelLibrary)
		if err := os.WriteFile(filepath.Join(f.build, "ort", libraryName), []byte("broken"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestByHand(t *testing.T) {
	t.Setenv("PATH", "")
	f := newFetcher(t)
	download := filepath.Join(f.build, "download")
	if err := os.MkdirAll(download, 0o755); err != nil {
		t.Fatal(err)
	}
	release := filepath.Join(download, "onnxruntime-linux-x64-9.9.9.tgz")
	makeTarball(t, release, "onnxruntime-linux-x64-9.9.9/lib/libonnxruntime.so.9.9.9", releaseLibrary)
	if err := f.ensure(testVersion, "ort"); err == nil {
		t.Fatal("a library that nobody vouched for was installed")
	}
	content, err := os.ReadFile(release)
	if err != nil {
		t.Fatal(err)
	}
	f.byHand = strings.ToUpper(sumOf(content))
	if err := f.ensure(testVersion, "ort"); err != nil {
		t.Fatal(err)
	}
	wantLibrary(t, f, releaseLibrary)
	f.byHand = ""
	if err := os.Remove(release); err != nil {
		t.Fatal(err)
	}
	if err := f.ensure(testVersion, "ort"); err != nil {
		t.Errorf("an accepted library was not kept: %v", err)
	}
}

func TestOtherPlatform(t *testing.T) {
	f := newFetcher(t)
	f.goos = "darwin"
	if err := f.ensure(testVersion, "ort"); err == nil || !strings.Contains(err.Error(), "COSETQ_ORT_LIBRARY") {
		t.Errorf("on darwin: %v", err)
	}
}

// Every version that is fetched has a pin for the common machine, and sums are sums.
func TestPins(t *testing.T) {
	for _, v := range append([]string{ortversions.Main}, ortversions.Others...) {
		if !knownPins.covers(v, "amd64", "pip") {
			t.Errorf("no pin for %s", v)
		}
	}
	for _, p := range knownPins {
		if raw, err := hex.DecodeString(p.sum); err != nil || len(raw) != sha256.Size {
			t.Errorf("%+v: not a SHA-256", p)
		}
	}
}
