"""Times of one linear layer: ours and ONNX Runtime's own kernels, in turn in one process.

  python3 peers.py LIBRARY FLOAT.onnx 4=Q4.onnx 2=Q2.onnx [--threads 1] [--batches 1,4,16,128]

FLOAT.onnx holds one MatMul with constant weights, the others are what `cosetq quantize` made of it. Needs the packages onnxruntime (1.24 or later), onnx and numpy.

With one thread times are the thread's processor time, which other work on the machine disturbs
least; with more they are wall-clock times. Median and least in microseconds, then the relative
error against float64 on the weights as that kernel sees them.
"""

import argparse
import time

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper


def model(nodes, k, n, **constants):
    graph = helper.make_graph(
        nodes, "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["m", k])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m", n])],
        [numpy_helper.from_array(v, name) for name, v in constants.items()])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def matmul_nbits(w, bits, block, accuracy):
    """The model and the weights it stands for."""
    k, n = w.shape
    blocks, zero = w.T.reshape(n, k // block, block), 2 ** (bits - 1)
    scale = np.abs(blocks).max(2, keepdims=True) / (zero - 0.5)
    q = np.clip(np.round(blocks / scale) + zero, 0, 2 * zero - 1).astype(np.uint8)
    packed = np.zeros((n, k // block, block * bits // 8), np.uint8)
    for i in range(8 // bits):
        packed |= q[:, :, i::8 // bits] << (bits * i)
    node = helper.make_node("MatMulNBits", ["x", "B", "S"], ["y"], domain="com.microsoft", K=k, N=n,
                            bits=bits, block_size=block, accuracy_level=accuracy)
    seen = ((q.astype(np.float32) - zero) * scale).reshape(n, k).T
    return model([node], k, n, B=packed, S=scale[:, :, 0].astype(np.float32)), seen


def dynamic_int8(w):
    scale = np.abs(w).max(0) / 127
    q = np.round(w / scale).astype(np.int8)
    node = helper.make_node
    nodes = [node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
             node("MatMulInteger", ["xq", "Q", "xz"], ["i"]), node("Cast", ["i"], ["f"], to=1),
             node("Mul", ["xs", "S"], ["s"]), node("Mul", ["f", "s"], ["y"])]
    return model(nodes, *w.shape, Q=q, S=scale.astype(np.float32)), q * scale


def session(source, threads, library=None, accuracy=None):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if library:
        options.add_session_config_entry("ai.coset.accuracy", accuracy)
        options.register_custom_ops_library(library)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("float")
    parser.add_argument("quantized", nargs="+")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batches", default="1,4,16,128")
    parser.add_argument("--rounds", type=int, default=24)
    args = parser.parse_args()
    w = numpy_helper.to_array(onnx.load(args.float).graph.initializer[0])
    k = w.shape[0]
    sources = {"float": (args.float, w), "dynamic int8": dynamic_int8(w)}
    for bits, block, accuracy in (4, 32, 4), (4, 32, 1), (4, 128, 4), (2, 128, 4):
        sources[f"nbits{bits} b{block} acc{accuracy}"] = matmul_nbits(w, bits, block, accuracy)
    kernels = {name: (session(s, args.threads), seen) for name, (s, seen) in sources.items()}
    for bits, path in (q.split("=") for q in args.quantized):
        portable, eye = session(path, args.threads), np.eye(k, dtype=np.float32)
        seen = np.concatenate([portable.run(None, {"x": eye[i:i + 512]})[0]
                               for i in range(0, k, 512)])
        for name, accuracy in ("accurate", "1"), ("fast", "4"):
            kernels[f"cosetq{bits} {name}"] = (
                session(path, args.threads, args.library, accuracy), seen)

    clock = time.thread_time_ns if args.threads == 1 else time.perf_counter_ns
    for batch in map(int, args.batches.split(",")):
        x = np.random.default_rng(2).standard_normal((batch, k)).astype(np.float32)
        times = {name: [] for name in kernels}
        for _ in range(args.rounds if batch <= 16 else args.rounds // 4):
            for name, (s, _) in kernels.items():
                for _ in range(3 if batch < 16 else 1):
                    start = clock()
                    s.run(None, {"x": x})
                    times[name].append((clock() - start) / 1000)
        print(f"{k} x {w.shape[1]}, batch {batch}, threads {args.threads}")
        for name, (s, seen) in kernels.items():
            want = x.astype(np.float64) @ seen.astype(np.float64)
            error = np.linalg.norm(s.run(None, {"x": x})[0] - want) / np.linalg.norm(want)
            print(f"  {name:22} {np.median(times[name]):9.0f} {min(times[name]):9.0f}  {error:.1e}",
                  flush=True)


main()
