"""Writes to the memory of its first input: runs a model with "past" bound as its output "present" too, on the GPU library's device. An input
"newest_first", if there is one, is true in every other run.

    in_place.py GPU_LIBRARY MODEL RUNS TOKENS WIDTH < all numbers of past and of the runs' "new" > present
"""

import sys

import numpy as np
import onnxruntime as ort

library, path = sys.argv[1:3]
runs, tokens, width = (int(n) for n in sys.argv[3:6])
numbers = np.frombuffer(sys.stdin.buffer.read(), np.float32)
ort.register_execution_provider_library("coset", library)
devices = [d for d in ort.get_ep_devices() if d.ep_name == "CosetExecutionProvider"]
vendor = devices[0].device.vendor_id


def put(array):
    return ort.OrtValue.ortvalue_from_numpy(array, "gpu", 0, vendor)


options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
options.add_session_config_entry("ai.coset.gpu_nodes", "all")
options.add_provider_for_devices(devices, {})
session = ort.InferenceSession(path, options)
switched = any(i.name == "newest_first" for i in session.get_inputs())
cache = put(numbers[: tokens * width].reshape(1, tokens, width))
for run, new in enumerate(numbers[tokens * width :].reshape(runs, 1, 1, width)):
    binding = session.io_binding()
    binding.bind_ortvalue_input("past", cache)
    binding.bind_ortvalue_input("new", put(new))
    if switched:
        binding.bind_ortvalue_input("newest_first", put(np.array([run % 2 == 0])))
    binding.bind_ortvalue_output("present", cache)
    session.run_with_iobinding(binding)
    binding.synchronize_outputs()
sys.stdout.buffer.write(cache.numpy().tobytes())
