"""Runs a model quantized by cosetq with its native library: python run.py MODEL LIBRARY

Needs the packages onnxruntime (1.24 or later) and numpy. Without the library the same model runs too, only slower:
leave out the call of register_custom_ops_library.
"""

import sys

import numpy as np
import onnxruntime as ort

model, library = sys.argv[1:3]
options = ort.SessionOptions()
options.register_custom_ops_library(library)  # libcosetq.so, runs the ops of the domain ai.coset
session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}
# Zeros stand for your data; a dimension without a fixed size becomes 1.
feeds = {
    i.name: np.zeros([d if isinstance(d, int) and d > 0 else 1 for d in i.shape], TYPES[i.type])
    for i in session.get_inputs()
}
for output, value in zip(session.get_outputs(), session.run(None, feeds)):
    print(output.name, value.shape, value.dtype)
