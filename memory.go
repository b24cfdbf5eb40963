package cosetq

import (
	"bytes"
	"os"
	"path"
	"strconv"
	"strings"
)

// freeMemory is how many bytes processes may still take, 0 where that is not known: what Linux says is available, or what is left of
// the limits of the control groups that this process is in, as containers and jobs have them, without the pages of files that they could give back.
func freeMemory() int64 { return freeMemoryAt(os.ReadFile) }

func freeMemoryAt(read func(path string) ([]byte, error)) int64 {
	info, err := read("/proc/meminfo")
	if err != nil {
		return 0
	}
	free := 1024 * field(info, "MemAvailable:") // it says kB
	groups, _ := read("/proc/self/cgroup")      // a container sees no more than the root, which has its limit
	of := "/"
	for line := range strings.Lines(string(groups)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			of = path.Clean("/" + name)
		}
	}
	for ; ; of = path.Dir(of) {
		if left, limited := leftOf(path.Join("/sys/fs/cgroup", of), read); limited {
			free = min(free, max(left, 1))
		}
		if of == "/" {
			return free
		}
	}
}

// leftOf is what is left of the limit of the group in that folder.
func leftOf(group string, read func(path string) ([]byte, error)) (left int64, limited bool) {
	number := func(name string) (n int64, ok bool) {
		text, err := read(path.Join(group, name))
		if err != nil {
			return 0, false
		}
		n, err = strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		return n, err == nil // not "max"
	}
	most, limited := number("memory.max")
	used, known := number("memory.current")
	stat, err := read(path.Join(group, "memory.stat"))
	if !limited || !known || err != nil {
		return 0, false
	}
	return most - used + field(stat, "inactive_file") + field(stat, "active_file"), true // a model that was read twice is active
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
