"""Runs the shipped snippet that generates text, and writes the ids of all tokens as raw float32, if the native library has multiplied:

    tokens.py SNIPPET MODEL OPS_LIBRARY PROMPT > output
"""

import ctypes
import runpy
import sys

import numpy as np

out = sys.stdout.buffer
sys.argv = sys.argv[1:]
sys.stdout = sys.stderr  # the snippet prints what it generates
generator = runpy.run_path(sys.argv[0], run_name="__main__")["generator"]

library = ctypes.CDLL(sys.argv[2])
library.cosetq_isa.restype = ctypes.c_char_p
library.cosetq_kernel_calls.restype = ctypes.c_int64
paths = (b"general", b"d4", b"lookup", b"lookup8", b"int16", b"int8")
calls = [library.cosetq_kernel_calls(library.cosetq_isa() + b"." + path) for path in paths]
if min(calls) < 0 or max(calls) == 0:
    sys.exit(f"the native library has run nothing: {calls}")
out.write(np.array(generator.get_sequence(0), np.float32).tobytes())
