"""Runs a model quantized by cosetq on an NVIDIA GPU: python run_gpu.py MODEL LIBRARY GPU_LIBRARY

Needs the packages onnxruntime (1.24 or later, the ordinary one for the CPU) and numpy, and NVIDIA's driver 580 or later. LIBRARY is
libcosetq.so, which runs what stays on the CPU, GPU_LIBRARY libcosetq_cuda.so.
"""

import os
import sys

import numpy as np
import onnxruntime as ort

model, library, gpu_library = sys.argv[1:4]
ort.register_execution_provider_library("coset", os.path.abspath(gpu_library))  # it looks beside itself for others
gpu = [d for d in ort.get_ep_devices() if d.ep_name == "CosetExecutionProvider"]
if not gpu:
    sys.exit("no GPU of compute capability 8.0 or later with NVIDIA's driver 580 or later")
options = ort.SessionOptions()
options.register_custom_ops_library(library)
options.add_provider_for_devices(gpu, {})
session = ort.InferenceSession(model, options)

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
print("on", ", ".join(session.get_providers()))
for output, value in zip(session.get_outputs(), session.run(None, feeds)):
    print(output.name, value.shape, value.dtype)
