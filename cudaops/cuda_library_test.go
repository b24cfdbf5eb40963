package cudaops

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// library.py of the GPU benchmark hands codecs to the library by a layout of its own, which no compiler compares with the header's.
func TestLibraryKnowsTheCodec(t *testing.T) {
	read := func(path string) string {
		text, err := os.ReadFile(filepath.FromSlash(path))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	name := regexp.MustCompile(`[a-z_]+`)
	header := read("include/cosetq/cosetq.h")
	_, header, _ = strings.Cut(header, "struct cosetq_codec {")
	header, _, _ = strings.Cut(header, "};")
	header = regexp.MustCompile(`/\*[^*]*\*/|\[\d+\]|int32_t|float`).ReplaceAllString(header, " ")
	want := name.FindAllString(header, -1)

	var got []string
	_, library, _ := strings.Cut(read("cuda/bench/library.py"), "class Codec(c.Structure):")
	library, _, _ = strings.Cut(library, "\n    ]")
	for _, field := range regexp.MustCompile(`\("([a-z_]+)"`).FindAllStringSubmatch(library, -1) {
		got = append(got, field[1])
	}
	if len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("library.py lays a codec out as %v, cosetq.h as %v", got, want)
	}
}
