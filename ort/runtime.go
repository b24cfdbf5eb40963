//go:build cgo && linux

package ort

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	binding "github.com/yalue/onnxruntime_go"
)

// Runtime is ONNX Runtime, loaded. It lives as long as the process.
type Runtime struct {
	library, version string
}

var (
	loadMu sync.Mutex
	loaded *Runtime
)

// Open finds ONNX Runtime (see [FindLibrary]) and loads it. Later calls answer the same runtime; asking for another
// library then is an error, since a process can hold one only. Its log messages are kept off stderr: what goes wrong
// comes back as errors.
func Open(o Options) (*Runtime, error) {
	loadMu.Lock()
	defer loadMu.Unlock()
	if loaded != nil && o.Library == "" {
		return loaded, nil
	}
	path, err := FindLibrary(o.Library)
	if err != nil {
		return nil, err
	}
	if loaded != nil {
		if loaded.library != path {
			return nil, fmt.Errorf("%w: %s was asked for, but this process runs %s already; use one library per process",
				ErrUnavailable, path, loaded.library)
		}
		return loaded, nil
	}
	if err := withoutTelemetry(); err != nil {
		return nil, err
	}
	version, err := libraryVersion(path)
	switch {
	case err != nil && path == systemLibrary:
		return nil, notFound(err)
	case err != nil:
		return nil, fmt.Errorf("%w: %s cannot be loaded: %v; run `make setup` for one that fits this machine", ErrUnavailable, path, err)
	case older(version, MinVersion):
		return nil, fmt.Errorf("%w: %s is version %s, and running models from here needs %s or later; run `make setup`, or set %s to a newer file",
			ErrUnavailable, path, version, MinVersion, EnvLibrary)
	}
	binding.SetSharedLibraryPath(path)
	if err := binding.InitializeEnvironment(binding.WithLogLevelFatal()); err != nil {
		return nil, fmt.Errorf("%w: %s, version %s, does not start: %v", ErrUnavailable, path, version, err)
	}
	loaded = &Runtime{library: path, version: version}
	return loaded, nil
}

// envTelemetry names the environment variable by which ONNX Runtime's own telemetry is turned off. From 1.30 on its Linux
// builds otherwise report usage to Microsoft when they are loaded, and keep an identifier of the machine in the user's cache.
const envTelemetry = "ORT_DISABLE_TELEMETRY"

// withoutTelemetry keeps ONNX Runtime from reporting, unless the user has decided about it.
func withoutTelemetry() error {
	if _, decided := os.LookupEnv(envTelemetry); decided {
		return nil
	}
	return os.Setenv(envTelemetry, "1")
}

// Version is the version of the loaded ONNX Runtime, such as 1.30.0.
func (r *Runtime) Version() string { return r.version }

// Library is the path that was loaded.
func (r *Runtime) Library() string { return r.library }

// older compares major and minor numbers; what cannot be read counts as new enough.
func older(version, limit string) bool {
	v, l := numbers(version), numbers(limit)
	return v[0] < l[0] || v[0] == l[0] && v[1] < l[1]
}

func numbers(version string) (n [2]int) {
	for i, part := range strings.SplitN(version, ".", 3) {
		if i == 2 {
			break
		}
		v, err := strconv.Atoi(part)
		if err != nil {
			return [2]int{1 << 30, 0}
		}
		n[i] = v
	}
	return n
}
