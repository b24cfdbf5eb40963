package cosetq

import (
	"io/fs"
	"testing"
)

func TestFreeMemory(t *testing.T) {
	const meminfo = "MemTotal:       32000000 kB\nMemFree:          100000 kB\nMemAvailable:    2000000 kB\n"
	group := map[string]string{"/proc/meminfo": meminfo, "/sys/fs/cgroup/memory.max": "1000000000\n", "/sys/fs/cgroup/memory.current": "900000000\n",
		"/sys/fs/cgroup/memory.stat": "anon 700000000\ninactive_file 50000000\n"}
	unlimited := map[string]string{"/proc/meminfo": meminfo, "/sys/fs/cgroup/memory.max": "max\n"}
	// A job in groups within each other, of which the outer one is nearer to its limit. Pages of its model are active: it was read twice.
	nested := map[string]string{"/proc/meminfo": meminfo, "/proc/self/cgroup": "1:name=systemd:/other\n0::/jobs/job_7/step\n",
		"/sys/fs/cgroup/jobs/job_7/step/memory.max": "max\n",
		"/sys/fs/cgroup/jobs/job_7/memory.max":      "900000000\n", "/sys/fs/cgroup/jobs/job_7/memory.current": "300000000\n", "/sys/fs/cgroup/jobs/job_7/memory.stat": "file 3\n",
		"/sys/fs/cgroup/jobs/memory.max": "1000000000\n", "/sys/fs/cgroup/jobs/memory.current": "900000000\n",
		"/sys/fs/cgroup/jobs/memory.stat": "inactive_file 50000000\nactive_file 250000000\n"}
	full := map[string]string{"/proc/meminfo": meminfo, "/sys/fs/cgroup/memory.max": "5\n", "/sys/fs/cgroup/memory.current": "6\n", "/sys/fs/cgroup/memory.stat": "\n"}
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"no Linux":      {nil, 0},
		"no group":      {map[string]string{"/proc/meminfo": meminfo}, 2_048_000_000},
		"without limit": {unlimited, 2_048_000_000},
		"a container":   {group, 150_000_000},
		"nested groups": {nested, 400_000_000},
		"nothing left":  {full, 1},
	} {
		got := freeMemoryAt(func(path string) ([]byte, error) {
			if text, ok := c.files[path]; ok {
				return []byte(text), nil
			}
			return nil, fs.ErrNotExist
		})
		if got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
