// Command decoder writes a language model with random weights, as models.Decoder makes it, to be timed: four layers of the sizes of
// Llama 3 8B with a vocabulary of 32000 unless flags say otherwise.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/cosetq/cosetq/models"
	"github.com/cosetq/cosetq/onnx"
)

func main() {
	d := models.Decoder{Seed: 1}
	flag.IntVar(&d.Layers, "layers", 4, "layers")
	flag.IntVar(&d.Width, "width", 4096, "numbers that stand for a token")
	flag.IntVar(&d.Heads, "heads", 32, "heads of queries")
	flag.IntVar(&d.CacheHeads, "cache-heads", 8, "heads of keys and values")
	flag.IntVar(&d.Network, "network", 14336, "width of the gated network")
	flag.IntVar(&d.Vocabulary, "vocabulary", 32000, "tokens that there are")
	flag.IntVar(&d.Tokens, "tokens", 4096, "most tokens of a sequence")
	flag.BoolVar(&d.Half, "half", false, "weights and activations of float16")
	flag.BoolVar(&d.Apart, "apart", false, "queries, keys and values as products of their own")
	flag.BoolVar(&d.Pieces, "pieces", false, "attention in the pieces that PyTorch's exporter writes, over caches that grow")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: decoder [flags] FILE.onnx")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if _, err := d.ONNX().Save(flag.Arg(0), onnx.SaveOptions{}); err != nil {
		fmt.Fprintln(os.Stderr, "decoder:", err)
		os.Exit(1)
	}
}
