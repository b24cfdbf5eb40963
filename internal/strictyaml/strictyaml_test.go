package strictyaml

import (
	"errors"
	"slices"
	"testing"
)

type file struct {
	Bits  int      `yaml:"bits"`
	Name  string   `yaml:"name"`
	List  []string `yaml:"list"`
	Seed  uint8    `yaml:"seed"`
	Inner struct {
		On bool `yaml:"on"`
	} `yaml:"inner"`
}

func TestDecode(t *testing.T) {
	var f file
	keys, err := Decode([]byte("\ufeff# options\nbits: 3\n\nname: d4:4,4\nlist: [a, b]\ninner: {on: true, odd: 1}\n"), &f)
	want := []Key{{"bits", 2}, {"name", 4}, {"list", 5}, {"inner", 6}, {"inner.on", 6}, {"inner.odd", 6}}
	if err != nil || !slices.Equal(keys, want) || f.Bits != 3 || f.Name != "d4:4,4" || len(f.List) != 2 || !f.Inner.On {
		t.Errorf("%v, %v, %+v", keys, err, f)
	}
	for text, want := range map[string]string{
		"bits: many":          `line 1: holds "many" where a number belongs`,
		"seed: -1":            `line 1: holds -1 where a number from 0 belongs`,
		"seed: 300":           `line 1: holds 300 where a smaller number belongs`,
		"list: {a: b}":        `line 1: holds "{" where a list, as [a, b], belongs`,
		"inner: 3":            `line 1: holds "3" where a mapping, as {scale: 1}, belongs`,
		"inner:\n  on: maybe": `line 2: holds "maybe" where true or false belongs`,
	} {
		var bad *Error
		if _, err := Decode([]byte(text), &f); !errors.As(err, &bad) || bad.Line == 0 || err.Error() != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	for _, text := range []string{"", "- a", "a: 1\n---\nb: 2", "text"} {
		if _, err := Decode([]byte(text), &f); !errors.Is(err, ErrNoMapping) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Whatever the bytes, there is an answer of one kind or the other.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("bits: 3\nlist: [a, 'b']\ninner: {on: yes}\n"))
	f.Add([]byte("a: &x [*x]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var got file
		_, err := Decode(text, &got)
		var bad *Error
		if err != nil && !errors.As(err, &bad) {
			t.Errorf("%T: %v", err, err)
		}
	})
}
