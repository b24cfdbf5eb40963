"""Runs the shipped snippet that generates text, and writes the ids of all tokens as raw float32:

    tokens.py SNIPPET MODEL OPS_LIBRARY PROMPT > output
"""

import runpy
import sys

import numpy as np

out = sys.stdout.buffer
sys.argv = sys.argv[1:]
sys.stdout = sys.stderr  # the snippet prints what it generates
generator = runpy.run_path(sys.argv[0], run_name="__main__")["generator"]
out.write(np.array(generator.get_sequence(0), np.float32).tobytes())
