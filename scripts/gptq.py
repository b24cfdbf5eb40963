"""Quantizes a language model over bytes with the GPTQ that onnxruntime brings along: int4 in blocks, MatMulNBits.

    python scripts/gptq.py MODEL OUTPUT TEXT --samples 128 --seq 256 --block 32

The windows of TEXT are those that `cosetq quantize --data` takes of a recipe of kind bytes. `make quality` runs it to have a peer
that knows the same data. Needs the packages onnxruntime and onnx.
"""

import argparse
import pathlib
import sys
import types

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader
from onnxruntime.quantization.matmul_nbits_quantizer import GPTQWeightOnlyQuantConfig, MatMulNBitsQuantizer

try:
    import torch  # noqa: F401
except ImportError:  # onnxruntime only asks whether what it is given is one of torch's tensors; nothing here is
    sys.modules["torch"] = types.SimpleNamespace(Tensor=type("Tensor", (), {}))


class Windows(CalibrationDataReader):
    """Evenly spread windows of a text: window w of n starts at w * ((len - seq - 1) // n)."""

    def __init__(self, name, text, samples, seq):
        step = (len(text) - seq - 1) // samples
        starts = (w * step for w in range(samples))
        self.windows = iter([{name: np.frombuffer(text[s : s + seq], np.uint8).astype(np.int64)[None]} for s in starts])

    def get_next(self):
        return next(self.windows, None)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("output")
    parser.add_argument("text")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--seq", type=int, default=256)
    parser.add_argument("--block", type=int, default=32)
    args = parser.parse_args()
    model = onnx.load(args.model)
    initialized = {t.name for t in model.graph.initializer}
    inputs = [i.name for i in model.graph.input if i.name not in initialized]
    reader = Windows(inputs[0], pathlib.Path(args.text).read_bytes(), args.samples, args.seq)
    quantizer = MatMulNBitsQuantizer(model, block_size=args.block, is_symmetric=True,
                                     algo_config=GPTQWeightOnlyQuantConfig(reader))
    quantizer.process()
    onnx.save(quantizer.model.model, args.output)


if __name__ == "__main__":
    main()
