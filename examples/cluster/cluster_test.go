package cluster

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
)

// environment finds the built program and the programs that a script needs, and puts the former on the PATH.
func environment(t *testing.T, what string, programs ...string) []string {
	t.Helper()
	bin := filepath.Join(testenv.Root(t), "bin")
	if _, err := os.Stat(filepath.Join(bin, "cosetq")); err != nil {
		t.Skipf("%v; run `make build`", err)
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			if testenv.Require(what) {
				t.Fatalf("%s requires %q: %v", testenv.EnvRequire, what, err)
			}
			t.Skip(err)
		}
	}
	return append(os.Environ(), "PATH="+bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
}

func model(t *testing.T) string {
	return filepath.Join(testenv.Root(t), "models", "data", "digits.onnx")
}

// Ranks of MPI divide the work.
func TestMPI(t *testing.T) {
	env := environment(t, "mpi", "mpirun")
	out := filepath.Join(t.TempDir(), "q.onnx")
	cmd := exec.Command("mpi/quantize.sh", "2", model(t), out)
	cmd.Env = append(env, "OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1", "OMPI_MCA_rmaps_base_oversubscribe=1")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	if _, err := os.Stat(out); err != nil {
		t.Error(err)
	}
}

// Four tasks on a real Slurm on loopback, one of them killed and queued again. Slurm lets a task wait two minutes before that.
func TestSlurm(t *testing.T) {
	if !testenv.Slow() && !testenv.Require("slurm") {
		t.Skip("takes minutes; COSETQ_REQUIRE=slurm runs it")
	}
	env := environment(t, "slurm", "slurmctld", "slurmd", "munged")
	cmd := exec.Command("slurm/loopback.sh", "slurm/test.sh", testenv.Llama(t), "--bits", "3")
	cmd.Env = env
	b, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(b), "the same bytes") || !strings.Contains(string(b), "queued again") {
		t.Fatalf("%v\n%s", err, b)
	}
	t.Logf("%s", b)
}
