// Package journal keeps the results of a long run on disk, a file per weight, in a folder beside the output. A run that was
// killed at any moment goes on from there, several machines that share the folder divide the work, and coded weights need
// not be held in memory: those that [Journal.Get] returns are views of their file.
//
// The folder holds
//
//	settings.json   what the results depend on; a run with other settings is refused. And the checksums of the final files, from
//	                just before they get their names
//	plan.json       what was decided about the weights, where that took work
//	<weight>.layer  one result each
//
// Every file appears under its name complete, layers with checksums; whatever else lies there is the remains of a killed process
// and of no consequence. Layers are flushed to the disk while the next are worked on, the other files before they get their
// names: what a power cut leaves of a layer that was not flushed yet is noticed by its checksums.
package journal
