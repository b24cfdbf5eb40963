//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package lockfile

import (
	"errors"
	"os"
)

func lock(*os.File, bool) (held bool, err error) { return false, errors.ErrUnsupported }
