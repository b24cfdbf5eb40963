// Runs a model quantized by cosetq with its native library: dotnet run -- MODEL LIBRARY
//
// Needs the package Microsoft.ML.OnnxRuntime, 1.24 or later. Without the library the same model runs too, only slower:
// leave out the line with RegisterCustomOpLibrary.

using System;
using System.Linq;
using Microsoft.ML.OnnxRuntime;
using Microsoft.ML.OnnxRuntime.Tensors;

static class Run
{
    static void Main(string[] args)
    {
        var options = new SessionOptions();
        options.RegisterCustomOpLibrary(args[1]);  // libcosetq.so, runs the ops of the domain ai.coset
        using (var session = new InferenceSession(args[0], options))
        {
            // Ones stand for your data; a dimension without a fixed size becomes 1.
            var feeds = session.InputMetadata.Select(input => Ones(input.Key, input.Value)).ToList();
            using (var results = session.Run(feeds))
            {
                foreach (var result in results)
                {
                    var value = result.AsTensor<float>();
                    Console.WriteLine(result.Name + " " + string.Join("x", value.Dimensions.ToArray()) + " " +
                        string.Join(" ", value.Take(10)));
                }
            }
        }
    }

    static NamedOnnxValue Ones(string name, NodeMetadata input)
    {
        var shape = input.Dimensions.Select(d => d > 0 ? d : 1).ToArray();
        var size = shape.Aggregate(1, (a, b) => a * b);
        if (input.ElementType == typeof(float))
        {
            return NamedOnnxValue.CreateFromTensor(name, new DenseTensor<float>(Enumerable.Repeat(1f, size).ToArray(), shape));
        }
        if (input.ElementType == typeof(long))
        {
            return NamedOnnxValue.CreateFromTensor(name, new DenseTensor<long>(Enumerable.Repeat(1L, size).ToArray(), shape));
        }
        throw new NotSupportedException(name + " is of type " + input.ElementType + ": fill it here");
    }
}
