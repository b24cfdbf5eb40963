//go:build !cgo || !linux

package ort_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/ort"
)

func TestWithoutCgoOpenSaysWhatToDo(t *testing.T) {
	_, err := ort.Open(ort.Options{})
	if !errors.Is(err, ort.ErrUnavailable) || !strings.Contains(err.Error(), "CGO_ENABLED=1") {
		t.Errorf("got %v", err)
	}
}
