package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/cosetq/cosetq"
)

// console is where a command writes: results on out, progress and logs on err.
type console struct {
	out, err    io.Writer
	json, quiet bool
	bar         *progressbar.ProgressBar
}

// printJSON writes the one object of --json.
func (c *console) printJSON(v any) error {
	enc := json.NewEncoder(c.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// output is stdout. It keeps the first error, so that no command has to ask after each line whether it was written.
type output struct {
	w   io.Writer
	err error
}

func (o *output) Write(b []byte) (int, error) {
	n := len(b)
	_, err := io.WriteString(o.w, visible(string(b), "\n\t"))
	if err != nil && o.err == nil {
		o.err = &cosetq.Error{Kind: cosetq.Resources, Err: fmt.Errorf("the command did its work, but its report is cut off: %w", err),
			Hint: "see where its output goes"}
	}
	return n, o.err
}

// table starts an aligned table on out; the caller flushes it.
func (c *console) table() *tabwriter.Writer {
	return tabwriter.NewWriter(c.out, 0, 4, columnGap, ' ', 0)
}

// namesTable is a table whose first column has names, which give way where it would not fit a terminal.
type namesTable struct {
	con *console
	bytes.Buffer
}

// namesTable starts a table on out whose lines begin with names that are visible; the caller flushes it.
func (c *console) namesTable() *namesTable { return &namesTable{con: c} }

const (
	terminalWidth = 80
	columnGap     = 2
	leastName     = 16 // of which a name shows no less, whatever stands beside it
)

// flush writes the table. Names are cut so far that it fits, unless they could not be told apart then.
func (t *namesTable) flush() error {
	var lines [][]string
	var widths []int // of the columns after the first, which what ends a line does not widen
	for line := range strings.Lines(t.String()) {
		cells := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		lines = append(lines, cells)
		for i := 1; i < len(cells)-1; i++ {
			if i > len(widths) {
				widths = append(widths, 0)
			}
			widths[i-1] = max(widths[i-1], utf8.RuneCountInString(cells[i])+columnGap)
		}
	}
	room := terminalWidth
	for _, cells := range lines {
		beside := columnGap + utf8.RuneCountInString(cells[len(cells)-1])
		for _, w := range widths[:max(len(cells)-2, 0)] {
			beside += w
		}
		room = min(room, terminalWidth-beside)
	}
	out := t.con.table()
	short := shortNames(lines, max(room, leastName))
	for i, cells := range lines {
		fmt.Fprintln(out, strings.Join(append([]string{short[i]}, cells[1:]...), "\t"))
	}
	return out.Flush()
}

// shortNames cuts the names that lines begin with to a length. Where names that differ would look alike, they are cut elsewhere, as far
// as that helps, and then they stay longer.
func shortNames(lines [][]string, n int) []string {
	whole := map[string]bool{}
	for _, cells := range lines {
		whole[cells[0]] = true
	}
	var first []string
	for ; ; n++ {
		for i := range n - 4 { // heads from half of n down, then from half of n up
			head := n/2 - 1 - i
			if head < 2 {
				head = i + 2
			}
			short, names := map[string]bool{}, []string(nil)
			for _, cells := range lines {
				names = append(names, cut(cells[0], head, n-1-head))
				short[names[len(names)-1]] = true
			}
			if len(short) == len(whole) {
				return names
			}
			if first == nil {
				first = names
			}
		}
		if n >= 2*longestName {
			return first
		}
	}
}

// logf writes a line to err unless --quiet.
func (c *console) logf(format string, args ...any) {
	if !c.quiet {
		c.warnf(format, args...)
	}
}

// warnf writes a line to err, whatever --quiet says: what must be known to trust the result.
func (c *console) warnf(format string, args ...any) {
	c.clearProgress()
	fmt.Fprintln(c.err, visible(fmt.Sprintf(format, args...), "\n\t"))
}

// progress starts a bar of n steps on err when that is a terminal, and returns
// the function that advances it. It has no colours, whatever NO_COLOR says.
func (c *console) progress(n int, what string) func(step int) {
	f, ok := c.err.(*os.File)
	if c.quiet || !ok || !term.IsTerminal(int(f.Fd())) {
		return func(int) {}
	}
	c.bar = progressbar.NewOptions(n,
		progressbar.OptionSetWriter(f), progressbar.OptionSetDescription(what), progressbar.OptionSetWidth(30),
		progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetPredictTime(true), progressbar.OptionShowBytes(what == "writing"),
		progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
	return func(step int) { _ = c.bar.Add(step) }
}

// follow returns a progress function that shows a bar for each stage.
func (c *console) follow() cosetq.Progress {
	var step func(int)
	stage, last := "", int64(0)
	return func(name string, done, total int64) {
		if name != stage {
			c.clearProgress()
			stage, last, step = name, 0, c.progress(int(total), name)
		}
		step(int(done - last))
		last = done
	}
}

// notes writes what a command wants people to know beside its result.
func (c *console) notes(list []string) {
	for _, n := range list {
		c.warnf("note: %s", n)
	}
}

func (c *console) clearProgress() {
	if c.bar != nil {
		_ = c.bar.Clear()
		c.bar = nil
	}
}

// visible replaces control characters, except those to keep, by their escapes, and bytes that are no UTF-8 by U+FFFD, as JSON has them
// too: names in a model are anybody's, and must not tell a terminal what to do nor break a table.
func visible(s, keep string) string {
	s = strings.ToValidUTF8(s, "\uFFFD") // a byte 0xff would make tabwriter take what follows for one cell
	hidden := func(r rune) bool { return unicode.IsControl(r) && !strings.ContainsRune(keep, r) }
	if strings.IndexFunc(s, hidden) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if hidden(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// longestName is how much of a name a table of names shows: one long one would widen every row. --json has them whole.
const longestName = 60

// shorten cuts the middle out of a long name.
func shorten(s string, n int) string { return cut(visible(s, ""), n/2-1, n-n/2) }

// cut leaves the head and the tail of what is longer than both and an ellipsis.
func cut(s string, head, tail int) string {
	if len(s) <= head+1+tail {
		return s
	}
	return strings.ToValidUTF8(s[:head], "") + "…" + strings.ToValidUTF8(s[len(s)-tail:], "")
}
