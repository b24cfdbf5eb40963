"""Times builds of the GPU library in turn with each other and cuBLAS in float16, for few rows of activations.

    python3 compare.py [--float32] [--rotated] "4 bits:4096x4096:8,16 z1:16:5120x5120:8" LIBRARY...

What to time are a codec of library.py, N x K and numbers of rows, as many as wanted. The builds, by float16 activations or float32, and
cuBLAS take turns of about 27 ms, as library.py times them; a line has the time of each in microseconds, with cuBLAS / it and its error
against float64.
"""

import argparse
import os
import re

import torch
import torch.nn.functional as F

import library as bench


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--float32", action="store_true", help="activations in float32")
    parser.add_argument("--rotated", action="store_true", help="weights of rotated activations")
    parser.add_argument("wanted", metavar="CODEC:NxK:ROWS,...")
    parser.add_argument("libraries", nargs="+", metavar="LIBRARY")
    arguments = parser.parse_args()
    wanted = re.findall(r"([^ ].*?):(\d+)x(\d+):([\d,]+)", arguments.wanted)
    if not wanted or any(codec not in bench.CODECS for codec, *_ in wanted):
        parser.error(f"codecs are {', '.join(bench.CODECS)}")
    libraries = [bench.Library(os.path.abspath(path)) for path in arguments.libraries]
    torch.manual_seed(1)
    print(torch.cuda.get_device_name())
    for codec, *shape, batches in wanted:
        n, k = map(int, shape)
        peers = [torch.randn(n, k, device="cuda", dtype=torch.half) for _ in range(bench.copies(2 * n * k))]
        builds = [bench.Rows(library, codec, n, k, arguments.rotated) for library in libraries]
        for batch in map(int, batches.split(",")):
            a = torch.randn(batch, k, device="cuda", dtype=torch.half)
            ours = [build.ours(a.float() if arguments.float32 else a, bench.ACCURATE) for build in builds]
            calls = [(lambda i: F.linear(a, peers[i % len(peers)]), max(20, len(peers)))] + [o[:2] for o in ours]
            us = bench.times(calls, rounds=3, warm=15, least=12)
            cells = [f"{t:.2f} ({us[0] / t:.2f}, {o[2]:.1e})" for t, o in zip(us[1:], ours)]
            print(f"{codec} {n}x{k} {batch}: cuBLAS {us[0]:.2f}; {'; '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
