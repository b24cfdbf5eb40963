// Package checkout tells where the files that a build left in a checkout of this module may be looked for.
package checkout

import (
	"path/filepath"
	"strings"
)

// goBuild begins the name of the folders in which `go run` and `go test` put the programs that they start.
const goBuild = "go-build"

// Folders lists the working directory and the folders above it, when the executable was built by `go run` or `go test`, as
// developers start programs. For any other executable it lists none: code that happens to lie where a user is working must
// not be loaded.
func Folders(executable, workingDirectory string) []string {
	started := false
	for _, part := range strings.Split(filepath.ToSlash(executable), "/") {
		started = started || strings.HasPrefix(part, goBuild)
	}
	if !started {
		return nil
	}
	var folders []string
	for dir := filepath.Clean(workingDirectory); ; dir = filepath.Dir(dir) {
		folders = append(folders, dir)
		if filepath.Dir(dir) == dir {
			return folders
		}
	}
}
