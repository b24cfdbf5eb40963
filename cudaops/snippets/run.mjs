// Runs a model quantized by cosetq with ONNX Runtime for Node: node run.mjs MODEL
//
// Needs the package onnxruntime-node. Its session options cannot load a custom-op library, so the model runs on the standard
// operators that the file carries: the same results, at float speed and with float's memory. Where speed matters, use a
// language that loads the native library libcosetq.so from `cosetq export --ops-dir`.

import * as ort from "onnxruntime-node";

const [model] = process.argv.slice(2);
const session = await ort.InferenceSession.create(model);
console.log("inputs", session.inputNames, "outputs", session.outputNames);
// Call session.run(feeds) as for any model.
