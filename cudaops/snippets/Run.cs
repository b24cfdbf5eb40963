// Loads a model quantized by cosetq with its native library: dotnet run -- MODEL LIBRARY
//
// Needs the package Microsoft.ML.OnnxRuntime, 1.24 or later.

using System;
using Microsoft.ML.OnnxRuntime;

using var options = new SessionOptions();
options.RegisterCustomOpLibrary(args[1]);  // libcosetq.so, runs the ops of the domain ai.coset
using var session = new InferenceSession(args[0], options);
foreach (var (name, input) in session.InputMetadata)
{
    Console.WriteLine($"{name}: {input.ElementType} [{string.Join(", ", input.Dimensions)}]");
}
// Call session.Run as for any model.
