package cosetq

import (
	"bytes"
	"os"
	"strconv"
	"strings"
)

// freeMemory is how many bytes processes may still take, 0 where that is not known: what Linux says is available, or what is left of
// the limit of the control group that containers have, without the pages of files that it could give back.
func freeMemory() int64 { return freeMemoryAt(os.ReadFile) }

func freeMemoryAt(read func(path string) ([]byte, error)) int64 {
	info, err := read("/proc/meminfo")
	if err != nil {
		return 0
	}
	free := 1024 * field(info, "MemAvailable:") // it says kB
	const group = "/sys/fs/cgroup/memory."
	limit, err := read(group + "max")
	if err != nil {
		return free
	}
	most, err := strconv.ParseInt(strings.TrimSpace(string(limit)), 10, 64)
	if err != nil { // "max"
		return free
	}
	current, err := read(group + "current")
	if err != nil {
		return free
	}
	stat, err := read(group + "stat")
	if err != nil {
		return free
	}
	used, err := strconv.ParseInt(strings.TrimSpace(string(current)), 10, 64)
	if err != nil {
		return free
	}
	return min(free, max(most-used+field(stat, "inactive_file"), 1))
}

// field is the number behind a name that begins a line, or 0.
func field(text []byte, name string) int64 {
	for line := range bytes.Lines(text) {
		words := strings.Fields(string(line))
		if len(words) < 2 || words[0] != name {
			continue
		}
		if n, err := strconv.ParseInt(words[1], 10, 64); err == nil {
			return n
		}
	}
	return 0
}
