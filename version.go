package cosetq

import "runtime/debug"

// version is stamped by the Makefile from git.
var version string

// Version is the version of this module: the one stamped at the build, or that of `go install`, or "dev".
func Version() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Path == "github.com/cosetq/cosetq" && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}
