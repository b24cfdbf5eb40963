//go:build cgo && linux

package ort

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	binding "github.com/yalue/onnxruntime_go"

	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/tensor"
)

// Session is a loaded model. Runs may happen at the same time; [Session.Close] waits for them.
type Session struct {
	inputs, outputs   []tensor.Spec
	inNames, outNames []string

	mu      sync.RWMutex // held for reading by runs
	binding *binding.DynamicAdvancedSession
	native  *nativeSession
}

// NewSession loads the model at path; external data is looked for beside it.
func (r *Runtime) NewSession(path string, o SessionOptions) (*Session, error) {
	inputs, outputs, err := describe(path)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	s, err := newSession(inputs, outputs, o, func(in, out []string, opts *binding.SessionOptions) (*binding.DynamicAdvancedSession, error) {
		return binding.NewDynamicAdvancedSession(path, in, out, opts)
	})
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	return s, nil
}

// configDataFolder is the session configuration entry that says where the external data of a model in memory lie.
const configDataFolder = "session.model_external_initializers_file_folder_path"

// NewSessionFromBytes loads an encoded model; external data is looked for in the folder dir. ONNX Runtime keeps no
// reference to the bytes.
func (r *Runtime) NewSessionFromBytes(model []byte, dir string, o SessionOptions) (*Session, error) {
	m, err := onnx.Parse(model)
	if err != nil {
		return nil, fmt.Errorf("load a model of %d bytes: %w", len(model), err)
	}
	inputs, outputs, err := Signature(m)
	if err != nil {
		return nil, fmt.Errorf("load a model of %d bytes: %w", len(model), err)
	}
	o.Config = maps.Clone(o.Config)
	if o.Config == nil {
		o.Config = map[string]string{}
	}
	o.Config[configDataFolder] = dir
	s, err := newSession(inputs, outputs, o, func(in, out []string, opts *binding.SessionOptions) (*binding.DynamicAdvancedSession, error) {
		return binding.NewDynamicAdvancedSessionWithONNXData(model, in, out, opts)
	})
	if err != nil {
		return nil, fmt.Errorf("load a model of %d bytes: %w", len(model), err)
	}
	return s, nil
}

// newSession makes the session that load gives.
func newSession(inputs, outputs []tensor.Spec, o SessionOptions, load func(in, out []string, opts *binding.SessionOptions) (*binding.DynamicAdvancedSession, error)) (*Session, error) {
	s := &Session{inputs: inputs, outputs: outputs, inNames: names(inputs), outNames: names(outputs)}
	opts, err := bindingOptions(o)
	if err != nil {
		return nil, err
	}
	defer opts.Destroy()
	if s.binding, err = load(s.inNames, s.outNames, opts); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrModel, outOfMemory(errors.New(reason(err))))
	}
	if err := s.open(); err != nil {
		return nil, errors.Join(err, s.binding.Destroy())
	}
	return s, nil
}

// open fetches the handles that [nativeSession] works on.
func (s *Session) open() error {
	session, err := handle(s.binding, "s", "ortSession")
	if err != nil {
		return err
	}
	memory, err := binding.GetMemoryInfo()
	if err != nil {
		return err
	}
	s.native = newNativeSession(session, unsafe.Pointer(memory), s.inNames, s.outNames)
	return nil
}

// bindingOptions translates the options. The caller destroys the result.
func bindingOptions(o SessionOptions) (*binding.SessionOptions, error) {
	opts, err := binding.NewSessionOptions()
	if err != nil {
		return nil, err
	}
	levels := map[OptimizationLevel]binding.GraphOptimizationLevel{
		OptimizeAll:      binding.GraphOptimizationLevelEnableAll,
		OptimizeDisabled: binding.GraphOptimizationLevelDisableAll,
		OptimizeBasic:    binding.GraphOptimizationLevelEnableBasic,
		OptimizeExtended: binding.GraphOptimizationLevelEnableExtended,
	}
	steps := []func() error{
		func() error { return opts.SetLogSeverityLevel(binding.LoggingLevelFatal) },
		func() error { return opts.SetIntraOpNumThreads(o.Threads) },
		func() error { return opts.SetGraphOptimizationLevel(levels[o.Optimization]) },
	}
	if o.OpsLibrary != "" {
		steps = append(steps, func() error {
			if _, err := os.Stat(o.OpsLibrary); err != nil {
				return libraryFails("native ops library: %v; build it with `make build`, or run without it", err)
			}
			if err := opts.RegisterCustomOpsLibrary(o.OpsLibrary); err != nil {
				why := reason(err)
				if !strings.HasPrefix(why, "ai.coset: ") { // else it is sound, and says itself what it does not like
					why += "; build it anew with `make build`, or run without it"
				}
				return libraryFails("native ops library %s: %s", o.OpsLibrary, why)
			}
			return nil
		})
	}
	if o.Provider != "" {
		steps = append(steps, func() error { return useProvider(opts, o.Provider) })
	}
	if o.ProfilePrefix != "" {
		steps = append(steps, func() error { return opts.EnableProfiling(o.ProfilePrefix) })
	}
	for key, value := range o.Config {
		steps = append(steps, func() error { return opts.AddSessionConfigEntry(key, value) })
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, errors.Join(err, opts.Destroy())
		}
	}
	return opts, nil
}

// Inputs describes the inputs that a run must be given, in the order that the model declares them.
func (s *Session) Inputs() []tensor.Spec { return s.inputs }

// Outputs describes the outputs of a run, in the order that the model declares them.
func (s *Session) Outputs() []tensor.Spec { return s.outputs }

// Run feeds inputs by name and returns every output by name. Outputs are copies that belong to the caller.
// When ctx ends during the run, the run stops after the node at work and ctx's error comes back.
func (s *Session) Run(ctx context.Context, inputs map[string]*tensor.Tensor) (map[string]*tensor.Tensor, error) {
	return s.RunInto(ctx, inputs, nil)
}

// RunInto is [Session.Run] that writes the outputs named in into to the tensors there, which have to be of their types and shapes.
func (s *Session) RunInto(ctx context.Context, inputs, into map[string]*tensor.Tensor) (map[string]*tensor.Tensor, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.native == nil {
		return nil, errors.New("run of a session that is closed")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	values, err := s.match(inputs)
	if err != nil {
		return nil, err
	}
	outs := make([]*tensor.Tensor, len(s.outNames))
	for name, t := range into {
		i := slices.Index(s.outNames, name)
		if i < 0 {
			return nil, fmt.Errorf("%w: it has no output %q; its outputs are %s", ErrInput, name, specList(s.outputs))
		}
		outs[i] = t
	}
	options, stop, err := cancelWith(ctx)
	if err != nil {
		return nil, err
	}
	outputs, err := s.native.run(values, outs, options)
	stop()
	if cause := ctx.Err(); err != nil && cause != nil {
		return nil, cause
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRun, outOfMemory(err))
	}
	return byName(s.outNames, outputs), nil
}

// match orders the inputs as the model declares them and checks names, types and fixed dimensions.
func (s *Session) match(inputs map[string]*tensor.Tensor) ([]*tensor.Tensor, error) {
	values := make([]*tensor.Tensor, len(s.inNames))
	for name, t := range inputs {
		i := slices.Index(s.inNames, name)
		if i < 0 {
			return nil, fmt.Errorf("%w: it has no input %q; its inputs are %s", ErrInput, name, specList(s.inputs))
		}
		if t == nil {
			return nil, fmt.Errorf("%w: input %q is nil", ErrInput, name)
		}
		values[i] = t
	}
	for i, spec := range s.inputs {
		if values[i] == nil {
			return nil, fmt.Errorf("%w: input %s was not given", ErrInput, spec)
		}
		if t := values[i]; !spec.Accepts(t.Type, t.Shape) {
			return nil, fmt.Errorf("%w: it declares %s, and %s%s was given", ErrInput, spec, t.Type, tensor.FormatShape(t.Shape))
		}
	}
	return values, nil
}

func names(specs []tensor.Spec) []string {
	n := make([]string, len(specs))
	for i, s := range specs {
		n[i] = s.Name
	}
	return n
}

func specList(specs []tensor.Spec) string {
	parts := make([]string, len(specs))
	for i, s := range specs {
		parts[i] = s.String()
	}
	return strings.Join(parts, ", ")
}

// cancelWith makes run options that stop the run when ctx ends; nil when ctx never does.
func cancelWith(ctx context.Context) (options unsafe.Pointer, stop func(), err error) {
	if ctx.Done() == nil {
		return nil, func() {}, nil
	}
	o, err := binding.NewRunOptions()
	if err != nil {
		return nil, nil, err
	}
	options, err = handle(o, "o")
	if err != nil {
		return nil, nil, errors.Join(err, o.Destroy())
	}
	ended := make(chan struct{})
	unwatch := context.AfterFunc(ctx, func() {
		defer close(ended)
		_ = o.Terminate() // a run that cannot be stopped simply ends later
	})
	return options, func() {
		if !unwatch() {
			<-ended // Terminate must not run on freed options
		}
		_ = o.Destroy()
	}, nil
}

// Close frees the model, and completes the profile if one was asked for.
func (s *Session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.native == nil {
		return nil
	}
	s.native.free()
	s.native = nil
	return s.binding.Destroy()
}

// handle reads the C pointer behind a chain of fields of one of the binding's structs. They are unexported, but without
// them the binding's own limits (see shim.go) would be ours. Going by name and kind, a changed binding gives an error.
func handle(object any, fields ...string) (unsafe.Pointer, error) {
	v := reflect.ValueOf(object)
	for _, f := range fields {
		if v = reflect.Indirect(v); v.Kind() == reflect.Struct {
			v = v.FieldByName(f)
		}
		if v.Kind() != reflect.Pointer {
			return nil, fmt.Errorf("onnxruntime_go has changed: %T has no pointer at %s; build against the version in go.mod",
				object, strings.Join(fields, "."))
		}
	}
	return v.UnsafePointer(), nil
}

// outOfMemory marks the messages by which ONNX Runtime, the last of them also our own libraries, say that memory ran out.
func outOfMemory(err error) error {
	for _, sign := range []string{"Failed to allocate memory", "bad allocation", "bad_alloc", "out of memory"} {
		if strings.Contains(err.Error(), sign) {
			return fmt.Errorf("%w: %w", err, syscall.ENOMEM)
		}
	}
	return err
}

// reason strips the binding's own words from the front of a message of ONNX Runtime.
func reason(err error) string {
	return strings.TrimPrefix(err.Error(), "Error creating C session from file: Error creating session from file: ")
}
