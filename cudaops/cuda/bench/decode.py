"""Times a language model that writes token after token, in ONNX Runtime with our provider and in PyTorch with float16 weights.

    go run ./models/decoder -half decoder.onnx
    cosetq quantize decoder.onnx -o decoder.q.onnx --device cuda
    python3 decode.py libcosetq.so libcosetq_cuda.so MODEL.onnx...

Models are those of models/decoder with its default sizes, float16. Caches have room for 4096 tokens and are used in place, or, of those made with
`-pieces`, grow by each token; a time is the median for one token after `context` others, or for a prompt, with the host waiting for each. PyTorch runs the same layers on weights of its own,
as one CUDA graph. The error is that of the logits after 16 tokens and one more, against ONNX Runtime on the processor. A prompt is timed with
activations of 8 bits as well, `ai.coset.accuracy` 4; the error of that is of all its logits. With more than four layers, which a processor takes long for,
errors of prompts are those of 256 tokens.
"""

import argparse
import math
import os
import time

import numpy as np
import onnxruntime as ort
import torch
import torch.nn.functional as F

WIDTH, HEADS, CACHE_HEADS, NETWORK, VOCABULARY, ROOM = 4096, 32, 8, 14336, 32000, 4096
SIZE = WIDTH // HEADS
NVIDIA = 0x10DE


def median(step, wait, runs=60, warm=10):
    for _ in range(warm):
        step()
    wait()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        step()
        wait()
        times.append(time.perf_counter() - start)
    return 1e3 * sorted(times)[runs // 2]


class Ours:
    """A model on the GPU, its caches and everything else bound to memory there."""

    def __init__(self, path, ops, device, accuracy):
        options = custom_ops(ops)
        options.add_session_config_entry("ai.coset.accuracy", accuracy)
        options.add_provider_for_devices([device], {})
        start = time.perf_counter()
        self.session = ort.InferenceSession(path, options)
        self.seconds_to_load = time.perf_counter() - start
        shape = [1, CACHE_HEADS, ROOM, SIZE]
        names = [i.name for i in self.session.get_inputs() if i.name.startswith("past_key_values.")]
        self.caches = {name: self.put(np.zeros(shape, np.float16)) for name in names}

    @staticmethod
    def put(array):
        return ort.OrtValue.ortvalue_from_numpy(array, "gpu", 0, NVIDIA)

    def bind(self, tokens, mask):
        """A run over these tokens; the mask has one for each that the cache then has."""
        binding = self.session.io_binding()
        binding.bind_ortvalue_input("input_ids", self.put(np.array([tokens], np.int64)))
        binding.bind_ortvalue_input("attention_mask", self.put(np.array([mask], np.int64)))
        logits = ort.OrtValue.ortvalue_from_shape_and_type([1, len(tokens), VOCABULARY], np.float16, "gpu", 0, NVIDIA)
        binding.bind_ortvalue_output("logits", logits)
        for name, cache in self.caches.items():
            binding.bind_ortvalue_input(name, cache)
            binding.bind_ortvalue_output(name.replace("past_key_values", "present"), cache)
        return binding, logits

    def time_of_token(self, context):
        return self.time([0], [1] * (context + 1) + [0] * (ROOM - context - 1))

    def time_of_prompt(self, count):
        return self.time([0] * count, [1] * count)

    def time(self, tokens, mask):
        binding, _ = self.bind(tokens, mask)
        return median(lambda: self.session.run_with_iobinding(binding), binding.synchronize_outputs)

    def logits(self, tokens, mask):
        binding, logits = self.bind(tokens, mask)
        self.session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return logits.numpy()

    def logits_of_prompt(self, count):
        return self.logits(prompt_of(count), [1] * count)

    def logits_of_token(self, count):
        """Of one token more, after the runs of one token are recorded."""
        self.logits_of_prompt(count)
        mask = [1] * (count + 1) + [0] * (ROOM - count - 1)
        return [self.logits([5], mask) for _ in range(4)][-1]


class Growing(Ours):
    """One whose caches grow: every token writes new ones, which memory is there for beforehand."""

    def grow(self, tokens, caches, total):
        binding = self.session.io_binding()
        binding.bind_ortvalue_input("input_ids", self.put(np.array([tokens], np.int64)))
        logits = ort.OrtValue.ortvalue_from_shape_and_type([1, len(tokens), VOCABULARY], np.float16, "gpu", 0, NVIDIA)
        binding.bind_ortvalue_output("logits", logits)
        grown = {name: ort.OrtValue.ortvalue_from_shape_and_type([1, CACHE_HEADS, total, SIZE], np.float16, "gpu", 0, NVIDIA) for name in caches}
        for name, cache in caches.items():
            binding.bind_ortvalue_input(name, cache)
            binding.bind_ortvalue_output(name.replace("past_key_values", "present"), grown[name])
        return binding, grown, logits

    def zeros(self, count):
        return {name: self.put(np.zeros([1, CACHE_HEADS, count, SIZE], np.float16)) for name in self.caches}

    def time_of_token(self, context):
        caches, bindings = self.zeros(context), []
        for token in range(70):
            binding, caches, _ = self.grow([0], caches, context + token + 1)
            bindings.append((binding, caches))
        at = iter(bindings)

        def step():
            self.last = next(at)[0]
            self.session.run_with_iobinding(self.last)

        return median(step, lambda: self.last.synchronize_outputs())

    def time_of_prompt(self, count):
        binding, _, _ = self.grow([0] * count, self.zeros(0), count)
        return median(lambda: self.session.run_with_iobinding(binding), binding.synchronize_outputs)

    def run(self, tokens, caches, total):
        binding, grown, logits = self.grow(tokens, caches, total)
        self.session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return logits.numpy(), grown

    def logits_of_prompt(self, count):
        return self.run(prompt_of(count), self.zeros(0), count)[0]

    def logits_of_token(self, count):
        _, caches = self.run(prompt_of(count), self.zeros(0), count)
        return self.run([5], caches, count + 1)[0]


def custom_ops(library):
    options = ort.SessionOptions()
    options.register_custom_ops_library(library)
    return options


def prompt_of(count):
    return [(7 * i) % VOCABULARY for i in range(count)]


class Processor:
    """The same model in ONNX Runtime on the processor, to compare with: errors are relative to the largest logit."""

    def __init__(self, path, ops):
        self.session = ort.InferenceSession(path, custom_ops(ops), providers=["CPUExecutionProvider"])
        self.masked = any(i.name == "attention_mask" for i in self.session.get_inputs())
        self.names = [o.name for o in self.session.get_outputs()]
        self.prompts = {}

    def run(self, tokens, past):
        count = len(tokens) + next(iter(past.values())).shape[2]
        feeds = {"input_ids": np.array([tokens]), **past}
        if self.masked:
            feeds["attention_mask"] = np.ones([1, count], np.int64)
        return dict(zip(self.names, self.session.run(self.names, feeds)))

    def prompt(self, count, ours):
        if count not in self.prompts:
            self.prompts[count] = self.run(prompt_of(count), {name: np.zeros([1, CACHE_HEADS, 0, SIZE], np.float16) for name in ours.caches})
        return self.prompts[count]

    def error_of_token(self, ours):
        """Of the token after 16."""
        out = self.prompt(16, ours)
        past = {name: out[name.replace("past_key_values", "present")] for name in ours.caches}
        return difference(ours.logits_of_token(16), self.run([5], past)["logits"])

    def error_of_prompt(self, count, ours):
        return difference(ours.logits_of_prompt(count), self.prompt(count, ours)["logits"])


def difference(got, want):
    return np.abs(got.astype(np.float32) - want).max() / np.abs(want).max()


class Torch:
    """The same layers on random float16 weights, captured as a CUDA graph."""

    def __init__(self, layers):
        def weight(rows, columns):
            return torch.randn(rows, columns, device="cuda", dtype=torch.half) / math.sqrt(columns)

        kv = CACHE_HEADS * SIZE
        self.layers = [(weight(WIDTH + 2 * kv, WIDTH), weight(WIDTH, WIDTH), weight(NETWORK, WIDTH), weight(NETWORK, WIDTH), weight(WIDTH, NETWORK)) for _ in range(layers)]
        self.embedding, self.head = weight(VOCABULARY, WIDTH), weight(VOCABULARY, WIDTH)
        self.caches = [[torch.zeros(1, CACHE_HEADS, ROOM, SIZE, device="cuda", dtype=torch.half) for _ in range(2)] for _ in range(layers)]
        self.ones = torch.ones(WIDTH, device="cuda", dtype=torch.half)
        angle = torch.arange(ROOM, device="cuda")[:, None] * 10000.0 ** -(torch.arange(SIZE // 2, device="cuda") / (SIZE // 2))
        self.cosines, self.sines = angle.cos().half().repeat(1, 2), angle.sin().half().repeat(1, 2)

    def turn(self, x, first):
        half = SIZE // 2
        rows = slice(first, first + x.shape[2])
        return x * self.cosines[rows] + torch.cat((-x[..., half:], x[..., :half]), -1) * self.sines[rows]

    def forward(self, ids, first):
        count, kv = ids.shape[0], CACHE_HEADS * SIZE
        total = F.embedding(ids, self.embedding)
        for (qkv, o, gate, up, down), (keys, values) in zip(self.layers, self.caches):
            x = F.rms_norm(total, (WIDTH,), self.ones)
            q, k, v = F.linear(x, qkv).split((WIDTH, kv, kv), -1)
            q, k, v = (t.view(1, count, -1, SIZE).transpose(1, 2) for t in (q, k, v))
            keys[:, :, first : first + count] = self.turn(k, first)
            values[:, :, first : first + count] = v
            y = F.scaled_dot_product_attention(self.turn(q, first), keys[:, :, : first + count], values[:, :, : first + count], is_causal=count > 1, enable_gqa=True)
            total = total + F.linear(y.transpose(1, 2).reshape(count, WIDTH), o)
            x = F.rms_norm(total, (WIDTH,), self.ones)
            total = total + F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)
        return F.linear(F.rms_norm(total, (WIDTH,), self.ones), self.head)

    def time(self, count, first):
        ids = torch.zeros(count, device="cuda", dtype=torch.long)
        side = torch.cuda.Stream()
        with torch.no_grad(), torch.cuda.stream(side):
            for _ in range(3):
                self.forward(ids, first)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.graph(graph):
            self.forward(ids, first)
        return median(graph.replay, torch.cuda.synchronize)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # ONNX Runtime looks beside itself for what has no folder.
    parser.add_argument("ops", type=os.path.abspath)
    parser.add_argument("library", type=os.path.abspath)
    parser.add_argument("models", nargs="+", metavar="MODEL.onnx")
    parser.add_argument("--layers", type=int, default=4, help="of the models, as of PyTorch's")
    arguments = parser.parse_args()
    print(torch.cuda.get_device_name(), "ONNX Runtime", ort.__version__, "PyTorch", torch.__version__)
    ort.register_execution_provider_library("coset", arguments.library)
    device = next(d for d in ort.get_ep_devices() if d.ep_name == "CosetExecutionProvider")
    peer = Torch(arguments.layers)
    contexts, prompts = (128, 1024, 4000), (512, 2048)

    def report(who, what, ms, count):
        print(f"{who}: {what}: {ms:.3f} ms, {1e3 * count / ms:.0f} tokens/s", flush=True)

    for context in contexts:
        report("PyTorch float16", f"one token after {context}", peer.time(1, context), 1)
    for prompt in prompts:
        report("PyTorch float16", f"prompt of {prompt}", peer.time(prompt, 0), prompt)
    for path in arguments.models:
        reference = Processor(path, arguments.ops)
        kind = Ours if reference.masked else Growing
        ours = kind(path, arguments.ops, device, "1")
        print(f"{path}: loaded in {ours.seconds_to_load:.1f} s", flush=True)
        for context in contexts:
            report(path, f"one token after {context}", ours.time_of_token(context), 1)
        print(f"{path}: error {reference.error_of_token(ours):.1e}", flush=True)
        for accuracy, bits in ("1", "16"), ("4", "8"):
            ours = kind(path, arguments.ops, device, accuracy)
            for prompt in prompts:
                report(path, f"prompt of {prompt}, activations of {bits} bits", ours.time_of_prompt(prompt), prompt)
                compared = prompt if arguments.layers <= 4 else 256
                print(f"{path}: error {reference.error_of_prompt(compared, ours):.1e}", flush=True)


if __name__ == "__main__":
    main()
