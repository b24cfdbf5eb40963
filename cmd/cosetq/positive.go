package main

import (
	"fmt"
	"strconv"
)

// positive is a flag that takes a positive number. Its default, zero, stands for a flag that is not given: who writes
// --max-drop 0 asks for a gate and would have none.
type positive float64

func (p *positive) String() string { return strconv.FormatFloat(float64(*p), 'g', -1, 64) }
func (p *positive) Type() string   { return "float" }

func (p *positive) Set(text string) error {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || !(v > 0) {
		return fmt.Errorf("%q is no positive number", text)
	}
	*p = positive(v)
	return nil
}
