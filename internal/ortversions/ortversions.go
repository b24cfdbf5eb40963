// Package ortversions names the versions of ONNX Runtime that setup fetches and tests run.
package ortversions

// Main is the one that the tool runs with.
const Main = "1.30.0"

// Others are those that the native library must also load in: the oldest, the newest and some between.
var Others = []string{"1.24.4", "1.26.0", "1.28.0", "1.32.0"}
