package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
)

// inMounts runs a script in a folder with file systems of its own, or skips where the system does not let a test have some.
func inMounts(t *testing.T, dir, script string) string {
	t.Helper()
	cmd := exec.Command("sh", "-ec", "mount -t tmpfs -o size=64k none disk || exit 77\n"+script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), testenv.EnvORT+"="+testenv.ORT(t), testenv.EnvOps+"="+testenv.Ops(t))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	} else {
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS // the mounts do not show outside
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Skipf("this system does not let a test make a mount namespace: %v", err)
	}
	if err := cmd.Wait(); err != nil {
		if cmd.ProcessState.ExitCode() == 77 {
			t.Skipf("this system does not let a test mount a file system: %s", out.String())
		}
		t.Fatalf("%v\n%s", err, out.String())
	}
	return out.String()
}

// A disk that is full in truth, in the middle of a model: exit code 7, no half-written file, what is done is kept (one weight at a
// time: two that are written together might both find no room); with room,
// --resume gives the bytes of a run that had it from the start. A disk that takes no files is a usage error.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := save(filepath.Join(dir, "m.onnx"), mlp(256, 256, 384, 256), onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "disk"), 0o777); err != nil {
		t.Fatal(err)
	}
	out := inMounts(t, dir, `
exits() { want=$1; shift; code=0; "$@" || code=$?; [ $code = $want ] || { echo "exit code $code, want $want: $*"; exit 1; }; }
cosetq quantize m.onnx -o q.onnx
exits 7 cosetq quantize m.onnx -o disk/q.onnx --threads 1
[ "$(ls -A disk)" = q.onnx.journal ] || { echo "left behind:"; ls -A disk; exit 1; }
exits 7 cosetq quantize m.onnx -o disk/q.onnx --resume --threads 1
exits 7 cosetq calibrate m.onnx --data random:4 -o disk/s.cqs
exits 7 cosetq export q.onnx -o disk/p.onnx
[ "$(ls -A disk)" = q.onnx.journal ] || { echo "left behind:"; ls -A disk; exit 1; }
exits 7 cosetq quickstart --dir disk
mount -o remount,size=4m disk
cosetq quantize m.onnx -o disk/q.onnx --resume
cmp q.onnx disk/q.onnx && cmp q.onnx.data disk/q.onnx.data
[ ! -e disk/q.onnx.journal ] || { echo "the journal is still there"; exit 1; }
mount -o remount,ro disk
exits 2 cosetq quantize m.onnx -o disk/other.onnx
`)
	if n := strings.Count(out, "error E_RESOURCES: "); n != 5 || strings.Count(out, "\n  hint: ") != 6 || strings.Contains(out, "goroutine") {
		t.Errorf("%d errors about the disk, want 5, each with a hint:\n%s", n, out)
	}
}

// A model that the memory left does not let map is no fault of the model's.
func TestOutOfMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "large.onnx")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(16<<30), f.Close()); err != nil { // a hole
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `ulimit -v 8000000 && exec cosetq inspect "$0"`, path)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != exitResources || !strings.Contains(string(out), "E_RESOURCES") {
		t.Errorf("%v, want exit code %d: %s", err, exitResources, out[:min(len(out), 400)])
	}
}
