package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// interruptWhileMapped waits until the started command has mapped a file (its model, a library), lets it work, sends the signal and returns the exit code.
func interruptWhileMapped(cmd *exec.Cmd, file string, signal os.Signal) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	if real, err := filepath.EvalSymlinks(file); err == nil {
		file = real
	}
	maps := fmt.Sprintf("/proc/%d/maps", cmd.Process.Pid)
	for mapped := false; !mapped; time.Sleep(5 * time.Millisecond) {
		text, err := os.ReadFile(maps)
		if err != nil || len(text) == 0 || ctx.Err() != nil { // no maps: it has ended
			return 0, errors.Join(fmt.Errorf("%s was never mapped", file), err, cmd.Wait())
		}
		mapped = strings.Contains(string(text), file)
	}
	time.Sleep(200 * time.Millisecond)
	if err := cmd.Process.Signal(signal); err != nil {
		return 0, err
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); errors.As(err, &exit) {
		return exit.ExitCode(), nil
	} else if err != nil {
		return 0, err
	}
	return 0, nil
}
