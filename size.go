package cosetq

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size prints a number of bytes as people read it, in decimal units.
func Size(n int64) string {
	switch {
	case n < 0:
		return "-" + Size(-n)
	case n < 1000:
		return fmt.Sprintf("%d B", n)
	case n < 1e6:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	case n < 1e9:
		return fmt.Sprintf("%.2f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.2f GB", float64(n)/1e9)
}

// ByteSize is a number of bytes, written with or without a unit.
type ByteSize int64

// MarshalText writes the number alone.
func (b ByteSize) MarshalText() ([]byte, error) { return strconv.AppendInt(nil, int64(b), 10), nil }

// UnmarshalText reads what [ParseSize] does.
func (b *ByteSize) UnmarshalText(text []byte) error {
	n, err := ParseSize(string(text))
	if err == nil {
		*b = ByteSize(n)
	}
	return err
}

// sizeUnits are what [ParseSize] knows; those that end like others come first.
var sizeUnits = []struct {
	name  string
	bytes float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"K", 1e3}, {"M", 1e6}, {"G", 1e9}, {"B", 1}, {"", 1},
}

// ParseSize reads a number of bytes, with or without a unit, as in 12000000, 12MB or 11.5 MiB.
func ParseSize(text string) (int64, error) {
	for _, u := range sizeUnits {
		number, ok := cutSuffixFold(strings.TrimSpace(text), u.name)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || !(v > 0 && v*u.bytes < math.MaxInt64/2) {
			break
		}
		return int64(v * u.bytes), nil
	}
	return 0, fmt.Errorf("%q is no size: write 12000000, 12MB or 11.5MiB", text)
}

func cutSuffixFold(s, suffix string) (before string, found bool) {
	if at := len(s) - len(suffix); at >= 0 && strings.EqualFold(s[at:], suffix) {
		return s[:at], true
	}
	return s, false
}
