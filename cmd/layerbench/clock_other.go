//go:build !linux

package main

import "time"

func threadClock() time.Duration { return wallClock() }
