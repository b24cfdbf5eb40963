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
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"no Linux":      {nil, 0},
		"no group":      {map[string]string{"/proc/meminfo": meminfo}, 2_048_000_000},
		"without limit": {unlimited, 2_048_000_000},
		"a container":   {group, 150_000_000},
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
