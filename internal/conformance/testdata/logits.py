"""Runs the shipped snippet, then its session on one float32 input, and writes the raw output:

    logits.py SNIPPET MODEL OPS_LIBRARY ROWS COLUMNS [GPU_LIBRARY] < input > output
"""

import runpy
import sys

import numpy as np

snippet, model, library = sys.argv[1:4]
shape = [int(n) for n in sys.argv[4:6]]
out = sys.stdout.buffer
sys.argv = [snippet, model, library, *sys.argv[6:]]
sys.stdout = sys.stderr  # the snippet prints what it found
session = runpy.run_path(snippet, run_name="__main__")["session"]
x = np.frombuffer(sys.stdin.buffer.read(), np.float32).reshape(shape)
out.write(session.run(None, {session.get_inputs()[0].name: x})[0].tobytes())
