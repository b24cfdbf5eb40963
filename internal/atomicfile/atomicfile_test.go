package atomicfile_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cosetq/cosetq/internal/atomicfile"
)

func ExampleWrite() {
	dir, err := os.MkdirTemp("", "atomicfile")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "report.txt")
	err = atomicfile.Write(path, 0o644, func(f *os.File) error {
		_, err := fmt.Fprintln(f, "all of it, or nothing")
		return err
	})
	if err != nil {
		panic(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s", content)
	// Output: all of it, or nothing
}

// content is what to write.
func content(text string) func(*os.File) error {
	return func(f *os.File) error {
		_, err := f.WriteString(text)
		return err
	}
}

// old makes a folder with one file, which says "old".
func old(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// holds makes sure that the folder of path holds that file alone, with this text.
func holds(t *testing.T, path, text string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != text {
		t.Errorf("the file holds %.40q, %v, want %q", got, err, text)
	}
	alone(t, filepath.Dir(path), filepath.Base(path))
}

func alone(t *testing.T, dir, name string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != name {
		t.Errorf("the folder holds %v, %v, want %s alone", entries, err, name)
	}
}

func TestWrite(t *testing.T) {
	path := old(t)
	if err := atomicfile.Write(path, 0o644, func(f *os.File) error {
		if got, err := os.ReadFile(path); err != nil || string(got) != "old" {
			t.Errorf("while it is written the file holds %q, %v", got, err)
		}
		if dir, name := filepath.Dir(f.Name()), filepath.Base(f.Name()); dir != filepath.Dir(path) || !strings.HasPrefix(name, ".file.") || !strings.HasSuffix(name, ".tmp") {
			t.Errorf("the temporary file is %s", f.Name())
		}
		return content("new")(f)
	}); err != nil {
		t.Error(err)
	}
	holds(t, path, "new")
	t.Chdir(filepath.Dir(path))
	if err := atomicfile.Write("file", 0o644, content("newer")); err != nil {
		t.Error(err)
	}
	holds(t, path, "newer")
}

// Whatever fails, the old file stays and no other does, and the error says which file could not be written, and why.
func TestFailure(t *testing.T) {
	full := errors.New("no space")
	for _, tt := range []struct {
		name  string
		write func(*os.File) error
		want  error
	}{
		{"writing", func(f *os.File) error { return errors.Join(content("half")(f), full) }, full},
		{"closing", (*os.File).Close, fs.ErrClosed},
		{"renaming", func(f *os.File) error { return os.Remove(f.Name()) }, fs.ErrNotExist},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := old(t)
			err := atomicfile.Write(path, 0o644, tt.write)
			if !errors.Is(err, tt.want) || !strings.HasPrefix(err.Error(), "write "+path+": ") {
				t.Errorf("%v, want %v", err, tt.want)
			}
			holds(t, path, "old")
		})
	}
}

func TestPanic(t *testing.T) {
	path := old(t)
	func() {
		defer func() { _ = recover() }()
		_ = atomicfile.Write(path, 0o644, func(*os.File) error { panic("a bug") })
	}()
	holds(t, path, "old")
}

func TestFolders(t *testing.T) {
	path := filepath.Join(t.TempDir(), "folder")
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, write := range map[string]func(string, fs.FileMode, func(*os.File) error) error{"Write": atomicfile.Write, "WriteNew": atomicfile.WriteNew} {
		err := write(path, 0o644, func(*os.File) error { t.Error("something was written for nothing"); return nil })
		if !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s in the place of a folder: %v", name, err)
		}
		err = write(filepath.Join(path, "none", "file"), 0o644, content("new"))
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), filepath.Join("none", "file")) {
			t.Errorf("%s in a folder that is not there: %v", name, err)
		}
	}
	// One that comes while the file is written.
	late := filepath.Join(path, "late")
	if err := atomicfile.Write(late, 0o644, func(*os.File) error { return os.Mkdir(late, 0o755) }); err == nil {
		t.Error("a folder was replaced")
	}
	alone(t, path, "late")
}

func TestReadOnlyFolder(t *testing.T) {
	path := old(t)
	dir := filepath.Dir(path)
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o755) })
	if f, err := os.Create(filepath.Join(dir, "probe")); err == nil {
		_ = f.Close()
		t.Skip("this user may write to read-only folders")
	}
	if err := atomicfile.Write(path, 0o644, content("new")); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
	holds(t, path, "old")
}

// A link is replaced; what it leads to stays. "link/.." is where the system says.
func TestLinks(t *testing.T) {
	path := old(t)
	dir := filepath.Join(t.TempDir(), "a")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Skip(err)
	}
	if err := atomicfile.WriteNew(link, 0o644, content("new")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a link was taken for no file: %v", err)
	}
	if err := atomicfile.Write(link, 0o644, content("new")); err != nil {
		t.Error(err)
	}
	holds(t, link, "new")
	holds(t, path, "old")
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(filepath.Dir(path), "deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(filepath.Dir(path), "deep"), link); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(link+"/../file", 0o644, func(f *os.File) error {
		alone(t, dir, "link") // the temporary file would be on another disk, perhaps
		return content("new")(f)
	}); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "new" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestLongNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("é", 127)) // 254 bytes; file systems allow 255
	if err := atomicfile.Write(path, 0o644, content("new")); err != nil {
		t.Fatal(err)
	}
	holds(t, path, "new")
}

func TestWriteIn(t *testing.T) {
	path, dir := old(t), t.TempDir()
	if err := atomicfile.WriteIn(dir, path, 0o644, func(f *os.File) error {
		if filepath.Dir(f.Name()) != dir {
			t.Errorf("the temporary file is %s", f.Name())
		}
		alone(t, filepath.Dir(path), "file")
		return content("new")(f)
	}); err != nil {
		t.Error(err)
	}
	holds(t, path, "new")
	if err := atomicfile.WriteIn(dir, path, 0o644, func(*os.File) error { return errors.ErrUnsupported }); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
	holds(t, path, "new")
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestWriteNew(t *testing.T) {
	path := old(t)
	called := func(*os.File) error { t.Error("something was written for nothing"); return nil }
	if err := atomicfile.WriteNew(path, 0o644, called); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("a file is there: %v", err)
	}
	holds(t, path, "old")
	path = filepath.Join(t.TempDir(), "file")
	if err := atomicfile.WriteNew(path, 0o644, content("new")); err != nil {
		t.Error(err)
	}
	holds(t, path, "new")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	err := atomicfile.WriteNew(path, 0o644, func(*os.File) error { return os.WriteFile(path, []byte("faster"), 0o600) })
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("somebody was faster: %v", err)
	}
	holds(t, path, "faster")
}

func TestPlace(t *testing.T) {
	path := old(t)
	for _, tt := range []struct {
		err  error
		want string
	}{{errors.ErrUnsupported, "old"}, {nil, "new"}} {
		f, err := os.Create(path + ".new")
		if err != nil {
			t.Fatal(err)
		}
		if err := atomicfile.Place(f, path, errors.Join(content("new")(f), tt.err)); !errors.Is(err, tt.err) {
			t.Errorf("%v, want %v", err, tt.err)
		}
		holds(t, path, tt.want)
		if err := f.Close(); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("it is open still: %v", err)
		}
	}
}

// Writers at once: every reader finds what one of them wrote, whole; of those of a new file one wins.
func TestConcurrent(t *testing.T) {
	const writers, size = 8, 1 << 16
	path := filepath.Join(t.TempDir(), "file")
	whole := func(b []byte) bool { return len(b) == size && bytes.Count(b, b[:1]) == size }
	won := make(chan int, writers)
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			mine := content(strings.Repeat(string(rune('a'+i)), size))
			switch err := atomicfile.WriteNew(path, 0o644, mine); {
			case err == nil:
				won <- i
			case !errors.Is(err, fs.ErrExist):
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(won) != 1 {
		t.Fatalf("%d writers of a new file won", len(won))
	}
	holds(t, path, strings.Repeat(string(rune('a'+<-won)), size))
	for i := range writers {
		all.Go(func() {
			for range 10 {
				if err := atomicfile.Write(path, 0o644, content(strings.Repeat(string(rune('A'+i)), size))); err != nil {
					t.Error(err)
				}
				if b, err := os.ReadFile(path); err != nil || !whole(b) {
					t.Errorf("read %d bytes that are not of one writer, %v", len(b), err)
				}
			}
		})
	}
	all.Wait()
	alone(t, filepath.Dir(path), "file")
}

// Check leaves nothing, nor touches what is there; in a folder that is none nothing can be made.
func TestCheck(t *testing.T) {
	path := old(t)
	if err := atomicfile.Check(path); err != nil {
		t.Error(err)
	}
	holds(t, path, "old")
	if err := atomicfile.Check(filepath.Join(path, "below")); err == nil || !strings.Contains(err.Error(), "below") {
		t.Errorf("below a plain file: %v", err)
	}
}
