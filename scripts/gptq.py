"""Quantizes a model with the GPTQ that onnxruntime brings along: int4 in blocks, MatMulNBits.

    python scripts/gptq.py MODEL SAMPLES.npz BLOCK=OUTPUT...

SAMPLES.npz holds an array for each input of the model, [samples, ...], as `quality -dump` writes it, so that the peer knows the
data that we know. `make quality` runs it. Needs the packages onnxruntime and onnx.
"""

import argparse
import copy
import sys
import types

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader
from onnxruntime.quantization.matmul_nbits_quantizer import GPTQWeightOnlyQuantConfig, MatMulNBitsQuantizer

try:
    import torch  # noqa: F401
except ImportError:  # onnxruntime only asks whether what it is given is one of torch's tensors; nothing here is
    sys.modules["torch"] = types.SimpleNamespace(Tensor=type("Tensor", (), {}))


class Samples(CalibrationDataReader):
    def __init__(self, arrays):
        count = len(next(iter(arrays.values())))
        self.feeds = iter([{name: a[i : i + 1] for name, a in arrays.items()} for i in range(count)])

    def get_next(self):
        return next(self.feeds, None)


class RunOnce(onnxruntime.InferenceSession):
    """Keeps what every sample gave. The quantizer asks for one tensor at a time, and each time all of the model would run."""

    kept = {}  # by sample; the first session made is the float model's, and all runs ask it

    def run(self, names, feed):
        key = next(iter(feed.values())).tobytes()
        if key not in self.kept:
            every = [o.name for o in self.get_outputs()]
            self.kept[key] = dict(zip(every, super().run(every, feed), strict=True))
        return [self.kept[key][name] for name in names]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("samples")
    parser.add_argument("outputs", nargs="+", metavar="BLOCK=OUTPUT")
    args = parser.parse_args()
    onnxruntime.InferenceSession = RunOnce
    model = onnx.load(args.model)
    with np.load(args.samples) as archive:
        arrays = dict(archive)
    for output in args.outputs:
        block, path = output.split("=", 1)
        quantizer = MatMulNBitsQuantizer(copy.deepcopy(model), block_size=int(block), is_symmetric=True,
                                         algo_config=GPTQWeightOnlyQuantConfig(Samples(arrays)))
        quantizer.process()
        onnx.save(quantizer.model.model, path)


if __name__ == "__main__":
    main()
