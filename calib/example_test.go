package calib_test

import (
	"fmt"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/tensor"
)

func ExampleParseRecipe() {
	_, err := calib.ParseRecipe("eval.yaml", []byte("kind: bytes\nfile: novel.txt\nsequence: 256\n"))
	fmt.Println(err)
	_, err = calib.ParseRecipe("eval.yaml", []byte("kind: images\ndir: photos\nlables: labels.csv\n"))
	fmt.Println(err)
	// Output:
	// data recipe eval.yaml:3: sequence: is not a key of kind bytes; known are file, input, kind, seq
	// data recipe eval.yaml:3: lables: is not a key of kind images (did you mean "labels"?)
}

func ExampleOpen_random() {
	ids := tensor.Spec{Name: "input_ids", Type: tensor.Int64, Ranked: true,
		Shape: []tensor.Dim{{Size: -1, Name: "batch"}, {Size: -1, Name: "sequence"}}}
	data, err := calib.Open("random:4,sequence=8", []tensor.Spec{ids}, calib.Options{Seed: 1})
	if err != nil {
		panic(err)
	}
	defer data.Close()
	s, err := data.Sample(0)
	fmt.Println(data.Len(), data.Random(), s.Inputs["input_ids"].Shape, err)
	// Output: 4 true [1 8] <nil>
}
