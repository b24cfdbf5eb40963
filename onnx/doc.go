// Package onnx reads, edits and writes ONNX files.
//
// It holds every field of the ONNX intermediate representation (up to IR
// version 14) in plain Go structs that are edited by assignment, and it knows
// the facts of the format: data types and their packing, external data, the
// scopes of names, the order of nodes. It does not know what an operator
// computes, infers no shapes, runs nothing and knows nothing of quantization.
//
// # Weights stay in the file
//
// [Open] maps the file. Opening and walking a model costs heap for names and
// structure only; the bytes of tensors are views into the mapping
// ([Tensor.Bytes]) or are converted piece by piece ([Tensor.Float32Range]).
// The views die with [Model.Close]: keep the model open until the last reader,
// which includes the writer of another model that took over some of its
// tensors, is done.
//
// # Byte fidelity
//
// Every struct remembers the bytes that it was parsed from. When a model is
// written, a message whose struct still says what those bytes say is written as
// those bytes, whatever their field order, their packing or the length of their
// varints. A message that was edited is encoded anew, field by field in the
// order of the field numbers, but the untouched messages inside it are again
// written as they were. Fields this package does not know are kept, in their
// order, behind the known ones. So an untouched model is written byte for byte,
// and an edited one differs only where it was edited.
//
// # Presence
//
// A field at its zero value is not written unless it was there in the file, with
// the exceptions that ONNX needs: the value of a typed attribute, and a
// dimension of size zero ([Dim]). Byte fields are written when they are not nil.
//
// # Hostile files
//
// A file is believed in nothing: lengths, nesting, dimensions and locations of
// external data are checked where they are used, and a lie comes back as a
// [*FormatError] that names the place. [Check] collects what a well-formed
// model must satisfy beyond its encoding.
package onnx
