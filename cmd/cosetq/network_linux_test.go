package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
)

// The program works on a machine without a network, and does not even try: no packet leaves, not to a name server and not
// for the telemetry of ONNX Runtime.
func TestNoNetwork(t *testing.T) {
	dir := t.TempDir()
	if err := save(filepath.Join(dir, "m.onnx"), mlp(96, 64, 32), onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	script := strings.Join([]string{
		"cosetq quantize m.onnx -o q.onnx", "cosetq inspect q.onnx", "cosetq run q.onnx --data random:1",
		"cosetq quantize m.onnx -o l.onnx --data random:4", "cosetq eval m.onnx q.onnx --task agreement --data random:4",
		"cosetq export q.onnx -o p.onnx", "echo COUNTERS", "cat /proc/self/net/snmp",
	}, " && ")
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), testenv.EnvORT+"="+testenv.ORT(t), testenv.EnvOps+"="+testenv.Ops(t))
	// A network of its own, with nothing in it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if id := os.Getuid(); id != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: id, Size: 1}}
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Skipf("this system does not let a test make a network namespace: %v", err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("without a network: %v\n%s", err, out.String())
	}
	_, counters, _ := strings.Cut(out.String(), "COUNTERS\n")
	lines := strings.Split(counters, "\n")
	seen := 0
	for i := 0; i+1 < len(lines); i += 2 { // names, then numbers
		names, numbers := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		for j, name := range names {
			switch name {
			case "OutRequests", "OutNoRoutes", "ActiveOpens", "OutDatagrams", "OutSegs":
				seen++
				if n, err := strconv.Atoi(numbers[j]); err != nil || n != 0 {
					t.Errorf("%s %s is %s", names[0], name, numbers[j])
				}
			}
		}
	}
	if seen < 4 {
		t.Errorf("only %d counters were read from\n%s", seen, counters)
	}
}
