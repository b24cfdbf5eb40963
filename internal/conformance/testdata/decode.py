"""Decodes the weights of a model as docs/format.md says, and writes them as float32:

    decode.py MODEL > weights

It is written from that page alone: what it reads differently from the tool, the page does not say or says wrongly.
"""

import sys

import numpy as np
import onnx
from onnx import helper, numpy_helper


def decode(node, tensors):
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    number = {name: numpy_helper.to_array(v).astype(float) for name, v in attributes.items() if isinstance(v, onnx.TensorProto)}
    rows, columns = attributes["N"], attributes["K"]
    codes, scales, scale_index, codebook, gains = (tensors[name] for name in node.input[1:6])

    tiles, groups, elements, tile = codes.shape
    stored = tiles * tile
    codes = codes.transpose(0, 3, 1, 2).reshape(stored, groups, elements).astype(int)
    blocks = 8 // codebook.shape[1]
    value = np.zeros((stored, groups, blocks, 8 // blocks))
    for slot, (element, divisor, modulus, base) in enumerate(number["slots"].T.astype(int)):
        level, block = divmod(slot, blocks)
        leader = codebook[codes[:, :, element] // divisor % modulus + base]
        value[:, :, block] += number["level_weights"][level] * leader
    value = value.reshape(stored, groups, 8) - number["centre"]

    divisors = number["gain_divisors"].astype(int)
    index = np.zeros((stored, groups), int)
    if len(divisors) > 1:
        packed = gains.transpose(0, 2, 1).reshape(stored, -1, 1).astype(int)
        index = (packed // divisors % len(number["gain_values"])).reshape(stored, -1)[:, :groups]
    value *= number["gain_values"][index][:, :, None]
    weight = value.transpose(0, 2, 1).reshape(stored, 8 * groups)[:rows, :columns]

    divisors = number["scale_divisors"].astype(int)
    if len(divisors) > 1:
        entry = (scale_index[:, None].astype(int) // divisors % 16).reshape(-1)[:rows]
        scale = scales[entry, 0]
    else:
        scale = scales.reshape(-1)
    weight = weight * scale.astype(float)[:, None]

    block = int(number.get("rotation", [1])[0])
    if block > 1:
        hadamard = np.array([[(-1.0) ** (i & j).bit_count() for j in range(block)] for i in range(block)])
        column = np.arange(columns)
        signs = 1 - 2.0 * (tensors[node.input[7]][column // 8] >> column % 8 & 1)
        weight = (weight.reshape(-1, block) @ hadamard / np.sqrt(block)).reshape(rows, columns) * signs
    return weight.astype(np.float32)


graph = onnx.load(sys.argv[1]).graph
initializers = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
for node in graph.node:
    if node.domain == "ai.coset":
        sys.stdout.buffer.write(decode(node, initializers).tobytes())
