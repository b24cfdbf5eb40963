"""Times the GPU kernels beside cuBLAS, and writes the tables of docs/benchmarks.md.

    python3 table.py LIBRARY [DOCUMENT]

LIBRARY is libcosetq_cuda.so; peers and ceilings come from PyTorch. The tables are printed, and take the place of what the document has
between its two lines that name bench-cuda. How times are taken is told in library.py.
"""

import contextlib
import ctypes as c
import datetime
import io
import re
import sys
import time as clock

import torch
import torch.nn.functional as F

from library import ACCURATE, CODECS, FAST, Codec, Library, Rows, Weight, copies, error, leaders, random_weights, time, times

FEW = (1, 2, 4, 8, 16)
MANY = (32, 64, 128, 512, 1024, 2048, 4096)
SHAPES = ((4096, 4096), (14336, 4096), (4096, 14336), (28672, 8192))


def name(codec):
    return codec if "bits" in codec else f"`{codec}`"


def shape(n, k):
    return f"{n} × {k}"


def table(*columns):
    print("\n| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")


def row(*cells):
    line = "| " + " | ".join(cells) + " |"
    print(line)
    print(line, file=sys.stderr, flush=True)


def stream():
    return c.c_void_p(torch.cuda.current_stream().cuda_stream)


def halves(n, k):
    """Weights that rotate, for cuBLAS."""
    return [torch.randn(n, k, device="cuda", dtype=torch.half) for _ in range(copies(2 * n * k))]


def cublas(a, weights):
    return lambda i: F.linear(a, weights[i % len(weights)]), max(20, len(weights))


def ceilings():
    x = torch.empty(1 << 30, device="cuda", dtype=torch.uint8).random_()
    y = torch.empty_like(x)
    copy = 2 * x.numel() / time(lambda _: y.copy_(x), 4) * 1e-6
    read = x.numel() / time(lambda _: torch.sum(x.view(torch.int64)), 4) * 1e-6
    del x, y
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.half)
    b = torch.randn(8192, 8192, device="cuda", dtype=torch.half)
    half = 2 * 8192**3 / time(lambda _: a @ b, 4) * 1e-6
    a8 = torch.randint(-127, 128, (8192, 8192), device="cuda", dtype=torch.int8)
    b8 = torch.randint(-127, 128, (8192, 8192), device="cuda", dtype=torch.int8)
    int8 = 2 * 8192**3 / time(lambda _: torch._int_mm(a8, b8.T), 4) * 1e-6
    card = torch.cuda.get_device_properties(0)
    print(f"{card.name}, {card.multi_processor_count} processors, {datetime.date.today():%-d %B %Y}, CUDA {torch.version.cuda}, PyTorch {torch.__version__}: "
          f"copy {copy:.2f} TB/s (read and written), read {read:.2f} TB/s, 8192³ float16 {half:.0f} TFLOP/s, int8 {int8:.0f} TOP/s.")


def few_rows(library):
    print("\n### 1 to 16 rows")
    table("codec", "N × K", *(f"{batch} row{'s' * (batch > 1)}" for batch in FEW))
    errors, peers = [], []
    for n, k in SHAPES:
        weights, of_shape = halves(n, k), []
        for codec in CODECS:
            of, cells = Rows(library, codec, n, k), []
            for batch in FEW:
                a = torch.randn(batch, k, device="cuda", dtype=torch.half)
                call, count, wrong = of.ours(a, ACCURATE)
                peer, ours = times([cublas(a, weights), (call, count)])
                cells.append(f"{ours:.2f}, {peer / ours:.2f}")
                errors.append(wrong)
                of_shape.append(peer)
            row(name(codec), shape(n, k), *cells)
        peers.append((n, k, min(of_shape), max(of_shape)))
        del weights
    table("N × K", "cuBLAS float16 µs")
    for n, k, least, most in peers:
        row(shape(n, k), f"{least:.1f} to {most:.1f}")
    print(f"\nErrors: {min(errors):.1e} to {max(errors):.1e}.")


def many_rows(library):
    print("\n### 32 rows and more")
    table("codec", "N × K", "rows", "float16 µs", "8 bits µs", "cuBLAS float16 µs", "int8 µs", "cuBLAS / float16", "cuBLAS / 8 bits", "errors")
    for n, k in SHAPES:
        if k > n:
            continue
        weights, bytes_ = halves(n, k), [torch.randint(-127, 128, (n, k), device="cuda", dtype=torch.int8) for _ in range(copies(n * k))]
        for codec, batches in (("4 bits", MANY), ("2 bits", (512, 4096)), ("z1:16", MANY), ("z1:4", (512, 4096))):
            of = Rows(library, codec, n, k)
            for batch in batches:
                a = torch.randn(batch, k, device="cuda", dtype=torch.half)
                a8 = torch.randint(-127, 128, (batch, k), device="cuda", dtype=torch.int8)
                accurate, fast = of.ours(a, ACCURATE), of.ours(a, FAST)
                us = times([cublas(a, weights), accurate[:2], fast[:2], (lambda i: torch._int_mm(a8, bytes_[i % len(bytes_)].T), max(20, len(bytes_)))], warm=250)
                row(name(codec), shape(n, k), str(batch), f"{us[1]:.1f}", f"{us[2]:.1f}", f"{us[0]:.1f}", f"{us[3]:.1f}", f"{us[0] / us[1]:.2f}",
                    f"{us[0] / us[2]:.2f}", f"{accurate[2]:.1e}, {fast[2]:.1e}")
            del of
        del weights, bytes_


def rotated_rows(library):
    print("\n### Rotated activations")
    table("codec", "N × K", "rows", "rotated µs", "as they are µs", "cuBLAS float16 µs", "error")
    for codec, n, k, batches in (("4 bits", 4096, 4096, (1, 8, 64, 512, 4096)), ("4 bits", 14336, 4096, (1, 8)), ("z1:16", 4096, 4096, (1, 512))):
        weights, plain, rotated = halves(n, k), Rows(library, codec, n, k), Rows(library, codec, n, k, rotated=True)
        for batch in batches:
            a = torch.randn(batch, k, device="cuda", dtype=torch.half)
            call, count, wrong = rotated.ours(a, ACCURATE)
            us = times([cublas(a, weights), plain.ours(a, ACCURATE)[:2], (call, count)], warm=60 if batch <= 16 else 250)
            row(name(codec), shape(n, k), str(batch), f"{us[2]:.2f}", f"{us[1]:.2f}", f"{us[0]:.2f}", f"{wrong:.1e}")


def look_ups(library):
    print("\n### One-sided look-ups")
    table("bits", "N × K", "graph µs", "look-ups/s", "alone µs", "look-ups/s", "error")
    for codec, digits in (("4 bits", 2), ("2 bits", 1)):
        for n, k in ((14336, 4096), (28672, 8192)):
            weights = random_weights(library, codec, n, k)
            query = torch.randn(k, device="cuda")
            y = torch.full((n,), float("nan"), device="cuda")
            workspace = torch.empty(library.lib.cosetq_cuda_vlut_workspace(weights[0].handle), dtype=torch.uint8, device="cuda")

            def call(i):
                library.must(library.lib.cosetq_cuda_vlut(weights[i % len(weights)].handle, c.c_void_p(query.data_ptr()), c.c_void_p(y.data_ptr()),
                                                          c.c_void_p(workspace.data_ptr()), stream()))

            call(0)
            torch.cuda.synchronize()
            wrong = error(weights[0].decode(), query[None], y[None])
            graph = time(call, max(20, len(weights)))
            # As a program would see it: launch, run, wait, with the host's clock.
            alone = []
            for i in range(30):
                begin = clock.perf_counter()
                call(i)
                torch.cuda.synchronize()
                alone.append((clock.perf_counter() - begin) * 1e6)
            single = sorted(alone)[15]
            count = n * k // 4 * digits
            row(codec[0], shape(n, k), f"{graph:.1f}", f"{count / graph * 1e6:.2e}", f"{single:.1f}", f"{count / single * 1e6:.2e}", f"{wrong:.1e}")


def pairs(library):
    print("\n### Two-sided look-ups")
    table("bits", "N of both, K", "µs", "look-ups/s", "cuBLAS float16 µs", "error")
    m = 64
    for codec, digits in (("4 bits", 2), ("2 bits", 1)):
        for n, k in ((4096, 4096), (14336, 4096)):
            weights, other = random_weights(library, codec, n, k), Weight(library, codec, m, k)
            y = torch.full((n, m), float("nan"), device="cuda")

            def call(i):
                library.must(library.lib.cosetq_cuda_vlut_pairs(weights[i % len(weights)].handle, other.handle, c.c_void_p(y.data_ptr()), stream()))

            call(0)
            torch.cuda.synchronize()
            wrong = error(weights[0].decode(), other.decode(), y.T)
            us = times([cublas(torch.randn(m, k, device="cuda", dtype=torch.half), halves(n, k)), (call, max(20, len(weights)))])
            count = n * m * k // 4 * digits**2
            row(codec[0], f"{n} and {m}, {k}", f"{us[1]:.1f}", f"{count / us[1] * 1e6:.2e}", f"{us[0]:.1f}", f"{wrong:.1e}")


def encode(library):
    print("\n### Encoder")
    table("codec", "weights/s", "mean squared error")
    for codec_name, spec in CODECS.items():
        codec = Codec(dim=spec["dim"], levels=len(spec["radices"]), gain_count=4, reach_one=spec["reach"], reach_two=spec["reach"], ray_shrink=0.875,
                      max_steps=2.0**40, max_refinements=16, max_overloads=2)
        for i, q in enumerate(spec["radices"]):
            codec.radices[i] = q
        for i, g in enumerate(spec["gains"]):
            codec.gains[i] = g
        for i, x in enumerate(spec["centre"]):
            codec.centre[i] = x
        points = [x for q in spec["radices"] for p in leaders(spec["dim"], q) for x in p]
        handle = library.lib.cosetq_cuda_encoder_create(c.byref(codec), (c.c_int32 * len(points))(*points))
        if not handle:
            raise SystemExit(library.lib.cosetq_cuda_error().decode())
        n, k = 8192, 8192
        rows = torch.randn(n, k, device="cuda")
        steps = torch.full((n,), spec["step"], device="cuda")
        sse = torch.zeros(n, device="cuda", dtype=torch.double)
        indices = torch.zeros(n * k // spec["dim"] * len(spec["radices"]), device="cuda", dtype=torch.int16)
        gains = torch.zeros(n * k // 8, device="cuda", dtype=torch.uint8)
        errors = torch.zeros(n * k // 8, device="cuda")

        def call(_):
            library.must(library.lib.cosetq_cuda_encode_device(
                c.c_void_p(handle), c.c_void_p(rows.data_ptr()), c.c_int64(k // 8), c.c_void_p(steps.data_ptr()), c.c_int64(n),
                c.c_void_p(sse.data_ptr()), c.c_void_p(indices.data_ptr()), c.c_void_p(gains.data_ptr()),
                c.c_void_p(errors.data_ptr()), stream()))

        us = time(call, 2)
        row(name(codec_name), f"{n * k / us * 1e6:.2e}", f"{sse.sum().item() / (n * k):.4f}")
        library.lib.cosetq_cuda_encoder_free(c.c_void_p(handle))


def main():
    if len(sys.argv) not in (2, 3):
        raise SystemExit("usage: table.py LIBRARY [DOCUMENT]")
    library = Library(sys.argv[1])
    torch.manual_seed(1)
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        for part in (ceilings, lambda: few_rows(library), lambda: many_rows(library), lambda: rotated_rows(library), lambda: look_ups(library),
                     lambda: pairs(library), lambda: encode(library)):
            part()
    print(text.getvalue())
    if len(sys.argv) == 2:
        return
    with open(sys.argv[2], encoding="utf-8") as f:
        document = f.read()
    document, found = re.subn(r"(<!-- bench-cuda: begin -->\n).*?(<!-- bench-cuda: end -->)", lambda m: f"{m[1]}\n{text.getvalue()}\n{m[2]}", document, flags=re.S)
    if found != 1:
        raise SystemExit(f"{sys.argv[2]} has no place for the tables: two lines that name bench-cuda")
    with open(sys.argv[2], "w", encoding="utf-8") as f:
        f.write(document)


if __name__ == "__main__":
    main()
