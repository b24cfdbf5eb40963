// Package cluster holds manifests and scripts that spread quantizing over several processes; its tests run them.
package cluster
