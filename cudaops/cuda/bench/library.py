"""libcosetq_cuda.so from Python, weights of random codes, and how both are timed beside others.

Every time is the median of graph replays; a graph makes 20 calls or more over weights that rotate through more memory than the cache holds,
and the graphs of ours and of the peers run in turn. Inputs are random, outputs are poisoned before the check, and errors are measured
against float64 on the decoded weights of sampled rows.
"""

import ctypes as c
import math

import torch

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
    """The leaders of D4 or Z modulo q as docs/format.md orders them, ties by the rule of package lattice."""
    if dim == 1:
        return [(k if k <= q // 2 else k - q,) for k in range(q)]
    table = [None] * q**4
    span = range(-q, q + 1)
    points = [(a, b, d, e) for a in span for b in span for d in span for e in span if (a + b + d + e) % 2 == 0]
    epsilon = [math.sqrt(prime) % 1 - 0.47 for prime in (2, 3, 5, 7)]
    for p in sorted(points, key=lambda p: (sum(x * x for x in p), sum(x * e for x, e in zip(p, epsilon)))):
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


def random_weights(library, codec, n, k, rotated=False):
    """Weights that rotate."""
    first = Weight(library, codec, n, k, rotated)
    return [first] + [Weight(library, codec, n, k, rotated) for _ in range(copies(first.bytes()) - 1)]


class Rows:
    """What multiplies rows of activations by a shape."""

    def __init__(self, library, codec, n, k, rotated=False):
        self.n, self.k = n, k
        self.weights = random_weights(library, codec, n, k, rotated)
        self.decoded = self.weights[0].decode()

    def ours(self, a, accuracy):
        """A call, how many of it make a graph, and its error."""
        y = torch.full((a.shape[0], self.n), math.nan, device="cuda", dtype=a.dtype)
        workspace = self.weights[0].workspace(a, accuracy)
        call = lambda i: self.weights[i % len(self.weights)].linear(a, y, workspace, accuracy)
        call(0)
        torch.cuda.synchronize()
        return call, max(20, len(self.weights)), error(self.decoded, a, y)
