// Package models holds the models that the project makes itself, with their data, for `cosetq quickstart` and the tests.
//
// One is trained: digits drawn from the Go fonts under random distortion and noise, and a small network that tells
// them apart. Both are made by the code of this package, in plain Go, and come out the same to the bit on every
// machine; the files in data are what `go generate` (one minute) made of it, kept in the repository so that nobody has
// to wait for a training. They are embedded, so that an installed cosetq has them at hand.
//
// The network is small, but it is not a toy problem's 100 %: it gets over one image in a hundred wrong, so that what a
// quantization loses can be seen.
//
// Models of random weights, [Transformer] and [Decoder], are made when they are asked for.
package models

//go:generate go run ./make
