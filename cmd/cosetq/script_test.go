package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/ort"
)

// The test binary is cosetq itself when it is started under that name, so that scripts and tests can run the whole program.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"cosetq": main})
}

// TestScripts runs testdata/script. Besides testscript's own, the scripts know these commands:
//
//	exits N cosetq ARGS...     run, and check the exit code and what holds for every command (see invariants)
//	field FILE PATH WANT       a value in JSON: a type, =text, <=number or >=number, absent; PATH as a.0.b
//	model KIND FILE            write a model of models_test.go
//	snapshot, unchanged        no file in the work folder came, went or changed since
//	interrupts FILE ARGS...    run cosetq, stop it by SIGINT soon after it has mapped FILE; it exits 130
func TestScripts(t *testing.T) {
	if testenv.Require("ort") {
		testenv.ORT(t)
	}
	if testenv.Require("ops") {
		testenv.Ops(t)
	}
	ortLibrary, _ := ort.FindLibrary("")
	if !filepath.IsAbs(ortLibrary) {
		ortLibrary = "" // a name that only the system's loader may know
	}
	opsLibrary, opsErr := cudaops.FindLibrary("")
	gpuStandIn := filepath.Join(testenv.Root(t), "build", "ops", "libcosetq_ep_host.so")
	if testenv.Require("ops") {
		testenv.HostProvider(t)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv(ort.EnvLibrary, ortLibrary)
			e.Setenv(cudaops.EnvLibrary, opsLibrary)
			e.Setenv("GPU_STAND_IN", gpuStandIn)
			e.Setenv("COSETQ_ISA", os.Getenv("COSETQ_ISA"))
			return nil
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "ort":
				return ortLibrary != "" && opsErr == nil, nil
			case "stand-in":
				_, err := os.Stat(gpuStandIn)
				return err == nil, nil
			case "proc":
				_, err := os.Stat("/proc/self/maps")
				return err == nil, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": cmdExits, "field": cmdField, "model": cmdModel,
			"snapshot": cmdSnapshot, "unchanged": cmdUnchanged, "interrupts": cmdInterrupts,
		},
	})
}

func need(ts *testscript.TestScript, neg bool, args []string, n int, use string) {
	if neg || len(args) < n {
		ts.Fatalf("usage: %s", use)
	}
}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "exits N COMMAND ARGS...")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	got := 0
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
	invariants(ts, got, args[1:], ts.ReadFile("stdout"), ts.ReadFile("stderr"))
}

// invariants are what holds for every command line: no panic, one JSON object on stdout with --json and no results there
// on failure without it, an error that has a code and says what, and progress only where somebody watches.
func invariants(ts *testscript.TestScript, code int, args []string, stdout, stderr string) {
	verdict := slices.Contains(args, "doctor") // its findings are its result, good or bad
	for _, sign := range []string{"panic:", "goroutine ", "fatal error:"} {
		if strings.Contains(stderr, sign) {
			ts.Fatalf("stderr has a panic")
		}
	}
	if strings.ContainsAny(stdout+stderr, "\r\x1b") {
		ts.Fatalf("progress or colours although nobody watches")
	}
	if code != 0 && !verdict {
		name := codeNames[code]
		if name == "" || !strings.HasPrefix(stderr[strings.LastIndex("\n"+stderr, "\nerror "):], "error "+name+": ") {
			ts.Fatalf("stderr has no line that starts with error %s", name)
		}
		if !strings.Contains(stderr, "\n  hint: ") {
			ts.Fatalf("the error does not say what to do")
		}
	}
	if !slices.Contains(args, "--json") {
		if code != 0 && stdout != "" && !verdict {
			ts.Fatalf("results on stdout although the command failed")
		}
		return
	}
	dec := json.NewDecoder(strings.NewReader(stdout))
	var v map[string]any
	if err := dec.Decode(&v); err != nil {
		ts.Fatalf("stdout is no JSON object: %v", err)
	}
	if dec.More() {
		ts.Fatalf("more than one JSON value on stdout")
	}
	if schema, _ := v["schema"].(string); !strings.HasPrefix(schema, "cosetq/v1/") {
		ts.Fatalf("schema is %q", schema)
	}
	if code != 0 && !verdict {
		if v["schema"] != "cosetq/v1/error" || v["exit_code"] != float64(code) {
			ts.Fatalf("the JSON of the error does not say exit code %d", code)
		}
	}
}

func cmdField(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 3, "field FILE PATH WANT")
	var v any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &v))
	found := true
	for part := range strings.SplitSeq(args[1], ".") {
		switch at := v.(type) {
		case map[string]any:
			v, found = at[part]
		case []any:
			i, err := strconv.Atoi(part)
			if found = err == nil && i < len(at); found {
				v = at[i]
			}
		default:
			found = false
		}
		if !found {
			break
		}
	}
	if problem := mismatch(v, found, args[2]); problem != "" {
		ts.Fatalf("%s: %s", args[1], problem)
	}
}

// mismatch says how a JSON value differs from what a script wants, "" when it does not.
func mismatch(v any, found bool, want string) string {
	if want == "absent" || !found {
		if found == (want == "absent") {
			return fmt.Sprintf("present is %v", found)
		}
		return ""
	}
	number, isNumber := v.(float64)
	kind := map[bool]string{true: "number", false: ""}[isNumber]
	switch v.(type) {
	case string:
		kind = "string"
	case bool:
		kind = "bool"
	case []any:
		kind = "array"
	case map[string]any:
		kind = "object"
	}
	ok := kind == want
	for _, op := range []string{"<=", ">="} {
		if text, has := strings.CutPrefix(want, op); has {
			limit, err := strconv.ParseFloat(text, 64)
			ok = err == nil && isNumber && (op == "<=" && number <= limit || op == ">=" && number >= limit)
		}
	}
	if text, has := strings.CutPrefix(want, "="); has {
		ok = fmt.Sprint(v) == text
	}
	if !ok {
		return fmt.Sprintf("it is %v, want %s", v, want)
	}
	return ""
}

// listing has a line for every file of the work folder: its name, its mode and its bytes' sum.
func listing(ts *testscript.TestScript) string {
	var b strings.Builder
	root := ts.Getenv("WORK")
	ts.Check(filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		_, err = fmt.Fprintf(&b, "%s %d %v\n", rel, info.Size(), info.ModTime().UnixNano())
		return err
	}))
	return b.String()
}

func cmdSnapshot(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 0, "snapshot")
	ts.Setenv("SNAPSHOT", listing(ts))
}

func cmdUnchanged(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 0, "unchanged")
	before, now := strings.Split(ts.Getenv("SNAPSHOT"), "\n"), strings.Split(listing(ts), "\n")
	for _, line := range now {
		if !slices.Contains(before, line) {
			ts.Fatalf("new or changed: %s", line)
		}
	}
	if len(now) != len(before) {
		ts.Fatalf("%d files are gone", len(before)-len(now))
	}
}

func cmdInterrupts(ts *testscript.TestScript, neg bool, args []string) {
	sent := os.Signal(os.Interrupt)
	if len(args) > 0 && args[0] == "-hup" {
		sent, args = syscall.SIGHUP, args[1:]
	}
	need(ts, neg, args, 2, "interrupts [-hup] FILE ARGS...")
	// Under nohup the hangup is ignored, and a child would inherit that; a signal that is caught here is not ignored there.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP)
	defer signal.Stop(caught)
	cmd := exec.Command("cosetq", args[1:]...)
	cmd.Dir, cmd.Env = ts.MkAbs("."), os.Environ()
	for _, name := range []string{"HOME", "TMPDIR", ort.EnvLibrary, cudaops.EnvLibrary} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	ts.Check(cmd.Start())
	code, err := interruptWhileMapped(cmd, ts.MkAbs(args[0]), sent)
	ts.Check(err)
	if code != exitInterrupted {
		ts.Fatalf("exit code %d, want %d\n%s%s", code, exitInterrupted, out.String(), errOut.String())
	}
	invariants(ts, code, args, out.String(), errOut.String())
}
