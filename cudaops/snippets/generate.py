"""Generates text in ONNX Runtime GenAI with a model quantized by cosetq: python generate.py MODEL LIBRARY [PROMPT]

Needs the package onnxruntime-genai (0.12 or later). MODEL lies in the folder that GenAI's model builder made, beside genai_config.json.
LIBRARY lies there too, or in the working folder: GenAI loads libraries from nowhere else. Without the library the same model runs,
only slower: leave out session_options.
"""

import json
import os
import sys

import onnxruntime_genai as og

path, library = sys.argv[1:3]
prompt = sys.argv[3] if len(sys.argv) > 3 else "Once upon a time"
folder, name = os.path.split(os.path.abspath(path))
config = og.Config(folder)
# Written into genai_config.json, the same makes every program use the quantized model.
decoder = {"filename": name, "session_options": {"custom_ops_library": os.path.abspath(library)}}
config.overlay(json.dumps({"model": {"decoder": decoder}}))
model = og.Model(config)

tokenizer = og.Tokenizer(model)
tokens = tokenizer.encode(prompt)
params = og.GeneratorParams(model)
params.set_search_options(max_length=len(tokens) + 64, do_sample=False)
generator = og.Generator(model, params)
generator.append_tokens(tokens)
stream = tokenizer.create_stream()
while not generator.is_done():
    generator.generate_next_token()
    print(stream.decode(generator.get_next_tokens()[0]), end="", flush=True)
print()
