// Command products looks in the machine code of Hopper's kernels for what touches registers of products that are under way: sums that
// are read before the wait for them, or numbers that are written over while they are multiplied. The compiler does not know that such
// products go on by themselves, and has moved copies of sums ahead of the wait (see Keep in cudaops/cuda/src/wgmma.cuh); results are
// then wrong now and then.
//
//	go run ./scripts/products CUOBJDUMP OBJECT...
//
// CUOBJDUMP is that of the CUDA toolkit, with nvdisasm beside it. It exits with 1 and names kernel, address and instruction.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: go run ./scripts/products CUOBJDUMP OBJECT...")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "products:", err)
		os.Exit(1)
	}
}

func run(cuobjdump string, objects []string, out io.Writer) error {
	kernels, found := 0, 0
	for _, object := range objects {
		cmd := exec.Command(cuobjdump, "-sass", object)
		cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(cuobjdump)+string(os.PathListSeparator)+os.Getenv("PATH"))
		cmd.Stderr = os.Stderr
		code, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("%s -sass %s: %w", cuobjdump, object, err)
		}
		n, touches := check(strings.NewReader(string(code)))
		kernels += n
		found += len(touches)
		for _, t := range touches {
			fmt.Fprintf(out, "%s: %s\n", filepath.Base(object), t)
		}
	}
	if kernels == 0 {
		return fmt.Errorf("no kernel of %s has products of warp groups: is it machine code for compute capability 9.0a?", strings.Join(objects, ", "))
	}
	if found > 0 {
		return fmt.Errorf("%d instructions touch registers of products under way", found)
	}
	fmt.Fprintf(out, "products: %d kernels leave the registers of their products alone\n", kernels)
	return nil
}

var (
	function    = regexp.MustCompile(`Function : (\S+)`)
	instruction = regexp.MustCompile(`^\s+/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;`)
	product     = regexp.MustCompile(`\b[HIQ]GMMA\.64x(\d+)x\d+\S* R(\d+), (?:R(\d+)|gdesc)`)
	wait        = regexp.MustCompile(`WARPGROUP\.DEPBAR\.LE gsb0, 0x([0-9a-f]+)`)
	register    = regexp.MustCompile(`\bR(\d+)\b`)
	result      = regexp.MustCompile(`^(?:@!?U?P\w+ )?(\S+) (?:!?U?P\w+, )*R(\d+)`)
	noResult    = regexp.MustCompile(`^(ST|RED|SYNCS|CCTL|BRA|UBLK|R2UR|WARP|BAR|NOP)`)
)

// group has the registers of products that are committed together.
type group struct{ sums, a map[int]bool }

func newGroup() group { return group{map[int]bool{}, map[int]bool{}} }

// registers are those of products under way: of each group that was committed, the oldest first, and of the one that is not yet.
type registers []group

// check reads what cuobjdump -sass prints, takes instructions in the order in which they lie, which for a loop is that of each time round, and
// returns the number of kernels that have products, and what touches these.
func check(code io.Reader) (kernels int, touches []string) {
	var name string
	var counted bool
	var busy registers
	lines := bufio.NewScanner(code)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if m := function.FindStringSubmatch(lines.Text()); m != nil {
			name, counted, busy = m[1], false, registers{}
			continue
		}
		m := instruction.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		address, text := m[1], m[2]
		switch p, w := product.FindStringSubmatch(text), wait.FindStringSubmatch(text); {
		case p != nil:
			if !counted {
				kernels++
				counted = true
			}
			busy.begin(number(p[1])/2, number(p[2]), p[3], strings.Contains(text, "gsb0"))
		case w != nil:
			left, _ := strconv.ParseInt(w[1], 16, 32)
			busy.end(int(left))
		case busy.touchedBy(text):
			touches = append(touches, fmt.Sprintf("%s at 0x%s: %s", name, address, text))
		}
	}
	return kernels, touches
}

// begin adds a product with so many sums from a register on, of four registers of A if it has them there. The last of a group commits it.
func (r *registers) begin(sums, first int, a string, last bool) {
	if len(*r) == 0 {
		*r = registers{newGroup()}
	}
	g := (*r)[len(*r)-1]
	for i := range sums {
		g.sums[first+i] = true
	}
	if a != "" {
		for i := range 4 {
			g.a[number(a)+i] = true
		}
	}
	if last {
		*r = append(*r, newGroup())
	}
}

// end waits until so many groups are left.
func (r *registers) end(left int) {
	if committed := len(*r) - 1; committed > left {
		*r = (*r)[committed-left:]
	}
}

// touchedBy says whether an instruction reads or writes sums, or writes A.
func (r registers) touchedBy(text string) bool {
	for _, m := range register.FindAllStringSubmatch(text, -1) {
		for _, g := range r {
			if g.sums[number(m[1])] {
				return true
			}
		}
	}
	m := result.FindStringSubmatch(text)
	if m == nil || noResult.MatchString(m[1]) {
		return false
	}
	width := 1
	switch {
	case strings.Contains(m[1], ".128"):
		width = 4
	case strings.Contains(m[1], ".64"), strings.Contains(m[1], ".WIDE"):
		width = 2
	}
	for i := range width {
		for _, g := range r {
			if g.a[number(m[2])+i] {
				return true
			}
		}
	}
	return false
}

// number is that of digits that a pattern has matched.
func number(digits string) int {
	n, _ := strconv.Atoi(digits)
	return n
}
