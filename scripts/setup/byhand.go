package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// placedByHand looks for what the user put into build/download: a package archive or library with a pinned sum or, with
// ORT_SHA256 set, any whose own sum or whose library's sum is that one. Other files are ignored, but named.
func (f fetcher) placedByHand(version, tmp string) (*library, error) {
	files, err := filepath.Glob(filepath.Join(f.build, "download", "*"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	for _, file := range files {
		lib, err := f.vouched(file, version, filepath.Join(tmp, libraryName))
		if err != nil {
			fmt.Fprintf(f.log, "setup: ignoring %s: %v\n", file, err)
			continue
		}
		return lib, nil
	}
	return nil, nil
}

func (f fetcher) vouched(file, version, dst string) (*library, error) {
	whole, err := sumFile(file)
	if err != nil {
		return nil, err
	}
	if err := takeLibrary(file, dst, f.arch); err != nil {
		return nil, err
	}
	sum, err := sumFile(dst)
	if err != nil {
		return nil, err
	}
	if _, ok := f.pins.accepts(version, f.arch, sum); ok {
		return &library{dst, sum, "placed by hand"}, nil
	}
	if want := strings.ToLower(f.byHand); want != "" && (want == whole || want == sum) {
		return &library{dst, sum, "placed by hand"}, nil
	}
	return nil, fmt.Errorf("its library's SHA-256 %s is not pinned for version %s on %s", sum, version, f.arch)
}

// takeLibrary gets the library out of a wheel, an npm package, a release archive, or a plain library file.
func takeLibrary(file, dst, arch string) error {
	if strings.Contains(filepath.Base(file), ".so") {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		return os.WriteFile(dst, data, 0o755)
	}
	return extract(file, dst, func(path string) bool {
		for _, s := range sources {
			if s.member(path, arch) {
				return true
			}
		}
		// The release archive: onnxruntime-linux-x64-1.30.0/lib/libonnxruntime.so.1.30.0, other names being links to it.
		return strings.Contains(path, "/lib/"+libraryName)
	})
}

// remedy is the error for when no source worked: what failed, and every way on from there.
func (f fetcher) remedy(version string, failures []string) error {
	release := map[string]string{"amd64": "x64", "arm64": "aarch64"}[f.arch]
	if len(failures) == 0 {
		failures = []string{fmt.Sprintf("no package of this version is pinned for %s", f.arch)}
	}
	npm := ""
	if f.pins.covers(version, f.arch, "npm") {
		npm = "\n  - or install Node.js with npm, and run it again;"
	}
	return fmt.Errorf(`could not fetch ONNX Runtime %[1]s:
    %[2]s
What helps, any of:
  - install Python 3 with pip (Debian, Ubuntu: apt install python3-pip; Fedora: dnf install python3-pip), and run it again;%[3]s
  - or, without either, download onnxruntime-linux-%[4]s-%[1]s.tgz from the release page of github.com/microsoft/onnxruntime,
    put it into %[5]s and run
        make setup ORT_SHA256=<the SHA-256 that the page shows beside the file>`,
		version, strings.Join(failures, "\n    "), npm, release, filepath.Join(f.build, "download"))
}
