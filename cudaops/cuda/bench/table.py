"""Times the GPU kernels beside cuBLAS and prints the tables of docs/benchmarks.md.

    python3 table.py LIBRARY

LIBRARY is libcosetq_cuda.so; peers and ceilings come from PyTorch. Every time is the median of graph replays; a graph makes
20 calls or more over weights that rotate through more memory than the cache holds, and the graphs of ours and of the peers run in
turn. Inputs are random, outputs are poisoned before the check, and errors are measured against float64 on the decoded weights of
sampled rows.
"""

import ctypes as c
import math
import sys
import time as clock

import torch
import torch.nn.functional as F

FLOAT, FLOAT16 = 1, 10
ACCURATE, FAST = 1, 4  # accuracy of a call
ROTATION = 256  # columns of a block of rotated weights


class Tensor(c.Structure):
    _fields_ = [("data", c.c_void_p), ("rank", c.c_int32), ("shape", c.c_int64 * 4)]


class Floats(c.Structure):
    _fields_ = [("values", c.c_void_p), ("count", c.c_int64)]


class Node(c.Structure):
    _fields_ = (
        [("rows", c.c_int64), ("cols", c.c_int64), ("code_bytes", c.c_int32), ("bias_type", c.c_int32)]
        + [(n, Tensor) for n in ("codes", "scales", "scale_index", "codebook", "gains", "bias")]
        + [(n, Floats) for n in ("slots", "level_weights", "centre", "gain_values", "gain_divisors", "scale_divisors")]
        + [("signs", Tensor), ("rotation", Floats)]
    )


class Call(c.Structure):
    _fields_ = [
        ("a", c.c_void_p), ("y", c.c_void_p), ("batch", c.c_int64), ("type", c.c_int32), ("accuracy", c.c_int32),
        ("workspace", c.c_void_p), ("workspace_bytes", c.c_int64),
    ]


class Codec(c.Structure):
    _fields_ = [
        ("dim", c.c_int32), ("levels", c.c_int32), ("gain_count", c.c_int32), ("radices", c.c_int32 * 4), ("gains", c.c_float * 16),
        ("centre", c.c_float * 4), ("reach_one", c.c_float), ("reach_two", c.c_float), ("ray_shrink", c.c_float),
        ("max_steps", c.c_float), ("max_refinements", c.c_int32), ("max_overloads", c.c_int32),
    ]


def type_of(tensor):
    return FLOAT16 if tensor.dtype == torch.half else FLOAT


def leaders(dim, q):
    """The leaders of D4 or Z modulo q as docs/format.md orders them; ties fall as they may, which matters to no time."""
    if dim == 1:
        return [(k if k <= q // 2 else k - q,) for k in range(q)]
    table = [None] * q**4
    span = range(-q, q + 1)
    points = [(a, b, d, e) for a in span for b in span for d in span for e in span if (a + b + d + e) % 2 == 0]
    for p in sorted(points, key=lambda p: sum(x * x for x in p)):
        # b = G^-1 p modulo q, as the encoder computes it.
        half = sum(p) // 2
        digits = (-half, p[0] - half, -(p[2] + p[3]), -p[3])
        k = sum((d % q) * q**i for i, d in enumerate(digits))
        if table[k] is None:
            table[k] = p
    return table


CODECS = {
    "4 bits": dict(dim=4, elements=4, books=[4], level_weights=[1, 4], gains=[3, 4, 5, 6], centre=[0, -2.65625, 1.71875, -0.9375],
                   slots=[[0, 1, 2, 3], [1] * 4, [256] * 4, [0] * 4], radices=[4, 4], reach=20, step=0.0549),
    "3 bits": dict(dim=4, elements=3, books=[4, 2], level_weights=[1, 2], gains=[3, 4, 5, 7], centre=[0, -1.6875, 1.0625, -0.625],
                   slots=[[0, 0, 1, 2], [1, 16, 1, 1], [16, 16, 256, 256], [256, 256, 0, 0]], radices=[2, 4], reach=10,
                   step=0.0974),
    "2 bits": dict(dim=4, elements=2, books=[4], level_weights=[1], gains=[3, 4, 5, 7], centre=[0, -0.53125, 0.34375, -0.1875],
                   slots=[[0, 1], [1, 1], [256, 256], [0, 0]], radices=[4], reach=4, step=0.1907),
    "z1:16": dict(dim=1, elements=4, books=[16], level_weights=[1], gains=[3, 4, 5, 6], centre=[0.5],
                  slots=[[0, 0, 1, 1, 2, 2, 3, 3], [1, 16] * 4, [16] * 8, [0] * 8], radices=[16], reach=8, step=0.0719),
    "z1:4": dict(dim=1, elements=2, books=[4], level_weights=[1], gains=[3, 4, 5, 7], centre=[0.5],
                 slots=[[0] * 4 + [1] * 4, [1, 4, 16, 64] * 2, [4] * 8, [0] * 8], radices=[4], reach=2, step=0.2195),
}


class Library:
    def __init__(self, path):
        self.lib = c.CDLL(path)
        for name in ("cosetq_cuda_linear_workspace", "cosetq_cuda_weight_bytes", "cosetq_cuda_vlut_workspace"):
            getattr(self.lib, name).restype = c.c_int64
        self.lib.cosetq_cuda_error.restype = c.c_char_p
        self.lib.cosetq_cuda_encoder_create.restype = c.c_void_p

    def must(self, status):
        if status != 0:
            raise SystemExit(self.lib.cosetq_cuda_error().decode())


class Weight:
    """A weight of random codes, of rotated activations if so wanted."""

    def __init__(self, library, codec, n, k, rotated=False):
        self.library, self.n, self.k = library, n, k
        spec = CODECS[codec]
        groups, tile = k // 8, 64
        tiles = n // tile
        g = torch.Generator().manual_seed(n + k)
        codes = torch.randint(0, 256, (tiles, groups, spec["elements"], tile), dtype=torch.uint8, generator=g)
        gains = torch.randint(0, 256, (tiles, groups // 4, tile), dtype=torch.uint8, generator=g)
        scales = (torch.rand(1, n, generator=g) + 0.5).half()
        book = torch.tensor([p for q in spec["books"] for p in leaders(spec["dim"], q)], dtype=torch.int8)
        lists = dict(
            slots=torch.tensor(spec["slots"]).float().flatten(), level_weights=torch.tensor(spec["level_weights"]).float(),
            centre=torch.tensor(spec["centre"] * (8 // spec["dim"])).float(), gain_values=torch.tensor(spec["gains"]).float(),
            gain_divisors=torch.tensor([1, 4, 16, 64]).float(), scale_divisors=torch.tensor([1]).float())
        tensors = dict(codes=codes, scales=scales, scale_index=torch.zeros(1, dtype=torch.uint8), codebook=book, gains=gains,
                       bias=torch.zeros(1))
        if rotated:
            tensors["signs"] = torch.randint(0, 256, (k // 8,), dtype=torch.uint8, generator=g)
            lists["rotation"] = torch.tensor([ROTATION]).float()
        node = Node(rows=n, cols=k, code_bytes=1, bias_type=FLOAT)
        for name, t in tensors.items():
            setattr(node, name, Tensor(t.data_ptr(), t.dim(), (c.c_int64 * 4)(*t.shape)))
        for name, t in lists.items():
            setattr(node, name, Floats(t.data_ptr(), t.numel()))
        self.signs = tensors.get("signs")
        self.handle = c.c_void_p()
        library.must(library.lib.cosetq_cuda_weight_create(c.byref(node), c.byref(self.handle)))

    def __del__(self):
        self.library.lib.cosetq_cuda_weight_free(self.handle)

    def bytes(self):
        return self.library.lib.cosetq_cuda_weight_bytes(self.handle)

    def decode(self):
        out = torch.full((self.n, self.k), math.nan, device="cuda")
        self.library.must(self.library.lib.cosetq_cuda_decode(self.handle, c.c_void_p(out.data_ptr()), FLOAT, None))
        torch.cuda.synchronize()
        return out if self.signs is None else self.turn_back(out.double())

    def turn_back(self, decoded):
        """Decoded weights as they were before the rotation of docs/format.md."""
        ones = torch.tensor([[1.0, 1.0], [1.0, -1.0]], device="cuda", dtype=torch.double)
        hadamard = torch.ones(1, 1, device="cuda", dtype=torch.double)
        while len(hadamard) < ROTATION:
            hadamard = torch.kron(hadamard, ones)
        bits = self.signs[:, None] >> torch.arange(8) & 1
        signs = 1 - 2 * bits.flatten().double().cuda()
        return (decoded.view(self.n, -1, ROTATION) @ hadamard).view(self.n, self.k) / math.sqrt(ROTATION) * signs

    def linear(self, a, y, workspace, accuracy):
        call = Call(a.data_ptr(), y.data_ptr(), a.shape[0], type_of(a), accuracy, workspace.data_ptr(), workspace.numel())
        stream = c.c_void_p(torch.cuda.current_stream().cuda_stream)
        self.library.must(self.library.lib.cosetq_cuda_linear(self.handle, c.byref(call), stream))

    def workspace(self, a, accuracy):
        size = self.library.lib.cosetq_cuda_linear_workspace(self.handle, c.c_int64(a.shape[0]), type_of(a), accuracy)
        return torch.empty(max(size, 256), dtype=torch.uint8, device="cuda")


def times(calls, rounds=2, warm=60, least=30):
    """The median time of each of some calls in microseconds: (call, calls of a graph). They take turns of some replays, after so many
    milliseconds of others of their own, which bring the clock to where their power leaves it."""
    stream = torch.cuda.Stream()
    graphs, all_times = [], [[] for _ in calls]
    with torch.cuda.stream(stream):
        for call, count in calls:
            for i in range(3):
                call(i)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                for i in range(count):
                    call(i)
            graphs.append(graph)
        for _ in range(rounds):
            for graph, (_, count), of in zip(graphs, calls, all_times):
                spent, measured = 0, 0
                while spent < warm + least or measured < 5:
                    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                    begin.record()
                    graph.replay()
                    end.record()
                    end.synchronize()
                    ms = begin.elapsed_time(end)
                    if spent >= warm:
                        of.append(ms * 1e3 / count)
                        measured += 1
                    spent += ms
    return [sorted(of)[len(of) // 2] for of in all_times]


def time(call, calls=20):
    return times([(call, calls)])[0]


def copies(bytes_):
    return max(2, int(300e6 / bytes_) + 1)


def error(weights, a, y):
    """Relative error of sampled columns of y against float64."""
    rows = torch.randint(0, weights.shape[0], (256,), device="cuda")
    want = a.double() @ weights[rows].double().T
    got = y[:, rows].double()
    return ((got - want).norm() / want.norm()).item()


class Rows:
    """What multiplies by a shape: weights of a codec, and those of the peers."""

    def __init__(self, library, codec, n, k, rotated=False):
        first = Weight(library, codec, n, k, rotated)
        self.bits, self.n, self.k = codec.removesuffix(" bits"), n, k
        self.weights = [first] + [Weight(library, codec, n, k, rotated) for _ in range(copies(first.bytes()) - 1)]
        self.decoded = first.decode()

    def ours(self, a, accuracy):
        """A call, how many of it make a graph, and its error."""
        y = torch.full((a.shape[0], self.n), math.nan, device="cuda", dtype=a.dtype)
        workspace = self.weights[0].workspace(a, accuracy)
        call = lambda i: self.weights[i % len(self.weights)].linear(a, y, workspace, accuracy)
        call(0)
        torch.cuda.synchronize()
        return call, max(20, len(self.weights)), error(self.decoded, a, y)


def linear_rows(library, shapes, batches):
    """Tables of few rows and of many, if there are any, for each shape and the codecs and batches that go with it."""
    few, many = [], []
    for n, k in shapes:
        peers = [torch.randn(n, k, device="cuda", dtype=torch.half) for _ in range(copies(2 * n * k))]
        peers8 = [torch.randint(-127, 128, (n, k), device="cuda", dtype=torch.int8) for _ in range(copies(n * k))]
        for codec in batches:
            of = Rows(library, codec, n, k)
            for batch in batches[codec]:
                a = torch.randn(batch, k, device="cuda", dtype=torch.half)
                calls = [(lambda i: F.linear(a, peers[i % len(peers)]), max(20, len(peers)))]
                accurate = of.ours(a, ACCURATE)
                calls.append(accurate[:2])
                if batch > 16:
                    fast = of.ours(a, FAST)
                    a8 = torch.randint(-127, 128, (batch, k), device="cuda", dtype=torch.int8)
                    calls += [fast[:2], (lambda i: torch._int_mm(a8, peers8[i % len(peers8)].T), max(20, len(peers8)))]
                us = times(calls, warm=60 if batch <= 16 else 250)
                ratios = [us[0] / t for t in us[1:3]]
                row = f"| {of.bits} | {n} × {k} | {batch} | "
                if batch <= 16:
                    few.append(row + f"{us[1]:.2f} | {us[0]:.2f} | {ratios[0]:.2f} | {accurate[2]:.1e} |")
                else:
                    many.append(row + f"{us[1]:.1f} | {us[2]:.1f} | {us[0]:.1f} | {us[3]:.1f} | {ratios[0]:.2f} | {ratios[1]:.2f} | "
                                f"{accurate[2]:.1e}, {fast[2]:.1e} |")
                print((few if batch <= 16 else many)[-1], file=sys.stderr, flush=True)
            del of
        del peers, peers8
    print("| bits | N × K | rows | ours µs | cuBLAS float16 µs | ratio | error |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(few) + "\n")
    if not many:
        return
    print("| bits | N × K | rows | float16 µs | 8 bits µs | cuBLAS float16 µs | int8 µs | cuBLAS / float16 | cuBLAS / 8 bits | errors |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    print("\n".join(many), flush=True)


def look_ups(library):
    print("\n| bits | N × K | graph µs | look-ups/s | alone µs | look-ups/s | error |")
    print("|---|---|---|---|---|---|---|")
    for codec, digits in (("4 bits", 2), ("2 bits", 1)):
        for n, k in ((14336, 4096), (28672, 8192)):
            first = Weight(library, codec, n, k)
            weights = [first] + [Weight(library, codec, n, k) for _ in range(copies(first.bytes()) - 1)]
            query = torch.randn(k, device="cuda")
            y = torch.full((n,), math.nan, device="cuda")
            workspace = torch.empty(library.lib.cosetq_cuda_vlut_workspace(first.handle), dtype=torch.uint8, device="cuda")

            def call(i):
                library.must(library.lib.cosetq_cuda_vlut(
                    weights[i % len(weights)].handle, c.c_void_p(query.data_ptr()), c.c_void_p(y.data_ptr()),
                    c.c_void_p(workspace.data_ptr()), c.c_void_p(torch.cuda.current_stream().cuda_stream)))

            call(0)
            torch.cuda.synchronize()
            wrong = error(first.decode(), query[None], y[None])
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
            print(f"| {codec[0]} | {n} × {k} | {graph:.1f} | {count / graph * 1e6:.2e} | {single:.1f} | {count / single * 1e6:.2e} | {wrong:.1e} |")


def encode(library):
    print("\n| encode | weights | ms | weights/s |")
    print("|---|---|---|---|")
    for name, spec in CODECS.items():
        codec = Codec(dim=spec["dim"], levels=len(spec["radices"]), gain_count=4, reach_one=spec["reach"], reach_two=spec["reach"], ray_shrink=0.875,
                      max_steps=2.0**40, max_refinements=16, max_overloads=2)
        for i, q in enumerate(spec["radices"]):
            codec.radices[i] = q
        for i, g in enumerate(spec["gains"]):
            codec.gains[i] = g
        for i, x in enumerate(spec["centre"]):
            codec.centre[i] = x
        table = [x for q in spec["radices"] for p in leaders(spec["dim"], q) for x in p]
        handle = library.lib.cosetq_cuda_encoder_create(c.byref(codec), (c.c_int32 * len(table))(*table))
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
                c.c_void_p(errors.data_ptr()), c.c_void_p(torch.cuda.current_stream().cuda_stream)))

        us = time(call, 2)
        mse = sse.sum().item() / (n * k)
        print(f"| {name}, error {mse:.4f} | {n * k / 1e6:.0f}e6 | {us / 1e3:.2f} | {n * k / us * 1e6:.2e} |")
        library.lib.cosetq_cuda_encoder_free(c.c_void_p(handle))


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
    print(f"{torch.cuda.get_device_name()}, {torch.cuda.get_device_properties(0).multi_processor_count} processors: copy {copy:.2f} TB/s (read and written), read {read:.2f} TB/s, "
          f"8192³ float16 {half:.0f} TFLOP/s, int8 {int8:.0f} TOP/s; PyTorch {torch.__version__}\n")


def main():
    if len(sys.argv) != 2:
        raise SystemExit("usage: table.py LIBRARY")
    library = Library(sys.argv[1])
    torch.manual_seed(1)
    ceilings()
    few = (1, 2, 4, 8, 16)
    all_rows = few + (32, 64, 128, 512, 1024, 2048, 4096)
    linear_rows(library, ((4096, 4096), (14336, 4096), (28672, 8192)), {
        "4 bits": all_rows, "3 bits": few, "2 bits": few + (512, 4096), "z1:16": all_rows, "z1:4": few + (512, 4096)})
    linear_rows(library, ((4096, 14336),), {codec: few for codec in ("4 bits", "3 bits", "2 bits", "z1:16", "z1:4")})
    look_ups(library)
    encode(library)


if __name__ == "__main__":
    main()
