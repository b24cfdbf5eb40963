// Runs a model quantized by cosetq with ONNX Runtime for Node: node run.mjs MODEL
//
// Needs the package onnxruntime-node. Its session options cannot load a custom-op library, so the model runs on the standard
// operators that the file carries: the same results, at float speed and with float's memory. Where speed matters, use a
// language that loads the native library libcosetq.so from `cosetq export --ops-dir`.

import * as ort from "onnxruntime-node";

const [model] = process.argv.slice(2);
const session = await ort.InferenceSession.create(model);

const arrays = { float32: Float32Array, int64: BigInt64Array, int32: Int32Array, bool: Uint8Array };
const feeds = {};
for (const { name, type, shape } of session.inputMetadata) {
  // Ones stand for your data; a dimension without a fixed size becomes 1.
  const dims = shape.map((d) => (typeof d === "number" && d > 0 ? d : 1));
  const values = new arrays[type](dims.reduce((a, b) => a * b, 1));
  feeds[name] = new ort.Tensor(type, values.fill(type === "int64" ? 1n : 1), dims);
}
for (const [name, value] of Object.entries(await session.run(feeds))) {
  console.log(name, value.dims.join("x"), value.data.slice(0, 10).join(" "));
}
