package cosetq

import (
	"testing"

	"github.com/cosetq/cosetq/eval"
)

// A model that gets one sample of a hundred less right drops by one point, and a gate that allows one lets it pass.
func TestDropsOfCountsAreExact(t *testing.T) {
	of := func(correct int) eval.Classification {
		return eval.Classification{Top1: float64(correct) / 100, Correct: correct, Count: 100}
	}
	for correct := range 101 {
		for lost := range correct + 1 {
			if drop := dropOf(of(correct), of(correct-lost)); drop != float64(lost) {
				t.Fatalf("%d of 100 after %d: a drop of %v", correct-lost, correct, drop)
			}
		}
	}
}
