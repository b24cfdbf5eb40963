// Package archtest holds the tests that guard the architecture: which package may import which, where cgo may be used,
// and what may not stand in any file of the repository. The table in rules.go is the layout of the project in short.
//
// It has no code outside its tests but that table.
package archtest
