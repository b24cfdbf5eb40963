package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
)

// cosetqIn prepares a run of the program in a folder.
func cosetqIn(dir string, args ...string) (cmd *exec.Cmd, output *bytes.Buffer) {
	cmd, output = exec.Command("cosetq", args...), new(bytes.Buffer)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, output, output
	return cmd, output
}

// killAfter starts the program, kills it after some time and tells whether that was before its end.
func killAfter(t *testing.T, delay time.Duration, dir string, args ...string) bool {
	t.Helper()
	cmd, out := cosetqIn(dir, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(delay, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err == nil {
		return false
	}
	if !errors.As(err, &exit) || exit.Exited() {
		t.Fatalf("%v: %s", err, out)
	}
	return true
}

// A run that is killed at any moment, and killed again when it is resumed, ends with the bytes of one that was not.
func TestKilledAnywhere(t *testing.T) {
	points := 4
	if testenv.Slow() {
		points = 100
	}
	root := t.TempDir()
	model := filepath.Join(root, "m.onnx")
	if err := save(model, mlp(256, 256, 384, 256, 384, 256, 384, 256, 384, 256, 384), onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	straight := filepath.Join(root, "straight")
	if err := os.Mkdir(straight, 0o777); err != nil {
		t.Fatal(err)
	}
	args := []string{"quantize", model, "-o", "q.onnx", "--bits", "3"}
	start := time.Now()
	cmd, out := cosetqIn(straight, args...)
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	whole := time.Since(start)
	want := contents(t, straight)

	rng := rand.New(rand.NewPCG(uint64(points), 9))
	killed, unfinished := 0, 0
	for i := range points {
		dir := filepath.Join(root, fmt.Sprint(i))
		if err := os.Mkdir(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		delay := time.Duration(rng.Float64() * 1.05 * float64(whole))
		if killAfter(t, delay, dir, args...) {
			killed++
		}
		if rng.IntN(3) == 0 { // once more
			if hasJournal(dir) {
				killAfter(t, time.Duration(rng.Float64()*float64(whole)), dir, append(args, "--resume")...)
			}
		}
		_, outputErr := os.Stat(filepath.Join(dir, "q.onnx"))
		if hasJournal(dir) || outputErr != nil {
			unfinished++
			cmd, out := cosetqIn(dir, append(args, "--resume")...)
			if err := cmd.Run(); err != nil {
				t.Fatalf("killed after %v: resume: %v: %s", delay, err, out)
			}
		}
		if got := contents(t, dir); got != want {
			t.Errorf("killed after %v of %v: the folder holds\n%s, not\n%s", delay, whole, got, want)
		}
	}
	t.Logf("%d runs of %v: %d killed, %d resumed", points, whole, killed, unfinished)
	if killed == 0 {
		t.Error("no run was killed before its end")
	}
}

// hasJournal tells whether a run has to go on. An empty folder is of one that had not begun, or was done but for removing it.
func hasJournal(dir string) bool {
	journal := filepath.Join(dir, "q.onnx.journal")
	_ = os.Remove(journal) // unless there is something in it
	_, err := os.Stat(journal)
	return err == nil
}

// contents has a line for every file of a folder: its name and checksum.
func contents(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, e := range entries {
		fmt.Fprintf(&b, "%s %s\n", e.Name(), sha256Of(t, filepath.Join(dir, e.Name())))
	}
	return b.String()
}

func sha256Of(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))
}
