package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

var (
	//go:embed node/package.json
	nodePackage []byte
	//go:embed node/package-lock.json
	nodeLock []byte
)

// ensureNode installs the packages of ONNX Runtime for JavaScript, whose sums the lock file pins. Their install scripts, which
// would fetch GPU libraries from elsewhere, do not run. The lock file is copied last, so that a changed or broken
// installation is made anew.
func ensureNode(dir string, log io.Writer) error {
	stamp := filepath.Join(dir, "installed.json")
	if made, err := os.ReadFile(stamp); err == nil && bytes.Equal(made, nodeLock) {
		return nil
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return fmt.Errorf("no npm; install Node 20 or later with npm")
	}
	fmt.Fprintln(log, "setup: making", dir)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, content := range map[string][]byte{"package.json": nodePackage, "package-lock.json": nodeLock} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	ci := exec.Command(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")
	ci.Dir = dir
	if out, err := ci.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci in %s: %v: %s", dir, err, lastLine(out))
	}
	return os.WriteFile(stamp, nodeLock, 0o644)
}
