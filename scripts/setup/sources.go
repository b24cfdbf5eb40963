package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// A source downloads an archive that holds ONNX Runtime's library into a folder, through a package client found on the
// machine. No address stands here: the client's own configuration decides where packages come from.
type source struct {
	name string
	// member tells the library's entry in the archive.
	member func(path, arch string) bool
	// commands lists ways to download, of which the first whose program exists and which succeeds is used.
	commands func(version, arch string) [][]string
}

var sources = []source{
	{
		name:   "pip",
		member: func(path, _ string) bool { return strings.HasPrefix(path, "onnxruntime/capi/libonnxruntime.so") },
		commands: func(version, arch string) [][]string {
			machine := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[arch]
			// The wheel is only unpacked, never imported: naming interpreter and platform makes any local Python fetch
			// the same one.
			args := []string{"--disable-pip-version-check", "download", "--quiet", "--no-deps", "--only-binary=:all:",
				"--python-version=3.11", "--implementation=cp", "--abi=cp311", "--platform=manylinux_2_28_" + machine,
				"--dest=.", "onnxruntime==" + version}
			return [][]string{
				append([]string{"python3", "-m", "pip"}, args...),
				append([]string{"pip3"}, args...),
				append([]string{"pip"}, args...),
			}
		},
	},
	{
		name: "npm",
		member: func(path, arch string) bool {
			machine := map[string]string{"amd64": "x64", "arm64": "arm64"}[arch]
			return strings.HasSuffix(path, "/linux/"+machine+"/libonnxruntime.so.1")
		},
		commands: func(version, _ string) [][]string {
			return [][]string{{"npm", "pack", "--silent", "onnxruntime-node@" + version}}
		},
	},
}

// download runs the source's commands in dir until one succeeds. The error says why each of them did not.
func (s source) download(dir, version, arch string, log io.Writer) error {
	var why []string
	for _, argv := range s.commands(version, arch) {
		program, err := exec.LookPath(argv[0])
		if err != nil {
			why = append(why, argv[0]+" is not installed")
			continue
		}
		fmt.Fprintln(log, "setup: fetching ONNX Runtime", version, "with", strings.Join(argv, " "))
		cmd := exec.Command(program, argv[1:]...)
		cmd.Dir = dir
		// A user's wish that pip touch virtual environments only is about installing; this downloads a file.
		cmd.Env = append(os.Environ(), "PIP_REQUIRE_VIRTUALENV=0", "PIP_NO_INPUT=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			why = append(why, fmt.Sprintf("%s: %v: %s", strings.Join(argv[:2], " "), err, lastLine(out)))
			continue
		}
		return nil
	}
	return fmt.Errorf("%s", strings.Join(why, "; "))
}

// lastLine is the last line that says something: clients print the reason of a failure there.
func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
