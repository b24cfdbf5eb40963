//go:build !unix

package cosetq

// PeakRSS is not measured on this system.
func PeakRSS() int64 { return 0 }

func residentBytes() int64 { return 0 }

// cpuSeconds is not measured on this system.
func cpuSeconds() float64 { return 0 }
