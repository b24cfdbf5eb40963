/* Runs a model on one float32 input with any ONNX Runtime that has API version 24, and writes the raw output:
 *
 *     logits ONNXRUNTIME MODEL OPS_LIBRARY ROWS COLUMNS < input > output
 *
 * An empty OPS_LIBRARY leaves the library out. */

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "onnxruntime_c_api.h"

static const OrtApi* ort;

static void check(OrtStatus* status) {
  if (status == NULL) return;
  fprintf(stderr, "%s\n", ort->GetErrorMessage(status));
  exit(1);
}

int main(int argc, char** argv) {
  OrtEnv* env;
  OrtSessionOptions* options;
  OrtSession* session;
  OrtAllocator* allocator;
  OrtMemoryInfo* memory;
  OrtValue *in, *out = NULL;
  OrtTensorTypeAndShapeInfo* info;
  char *in_name, *out_name;
  void* data;
  size_t count;
  if (argc != 6) return 2;
  void* library = dlopen(argv[1], RTLD_NOW);
  if (library == NULL) {
    fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  const OrtApiBase* base = ((const OrtApiBase* (*)(void))dlsym(library, "OrtGetApiBase"))();
  ort = base->GetApi(24);
  if (ort == NULL) {
    fprintf(stderr, "API version 24 is missing\n");
    return 1;
  }
  int64_t shape[2] = {atoll(argv[4]), atoll(argv[5])};
  size_t bytes = (size_t)(shape[0] * shape[1]) * sizeof(float);
  float* input = malloc(bytes);
  if (fread(input, 1, bytes, stdin) != bytes) return 2;

  check(ort->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "logits", &env));
  check(ort->CreateSessionOptions(&options));
  if (argv[3][0] != 0) check(ort->RegisterCustomOpsLibrary_V2(options, argv[3]));
  check(ort->CreateSession(env, argv[2], options, &session));
  check(ort->GetAllocatorWithDefaultOptions(&allocator));
  check(ort->SessionGetInputName(session, 0, allocator, &in_name));
  check(ort->SessionGetOutputName(session, 0, allocator, &out_name));
  check(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
  check(ort->CreateTensorWithDataAsOrtValue(memory, input, bytes, shape, 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &in));
  check(ort->Run(session, NULL, (const char* const*)&in_name, (const OrtValue* const*)&in, 1,
                 (const char* const*)&out_name, 1, &out));
  check(ort->GetTensorTypeAndShape(out, &info));
  check(ort->GetTensorShapeElementCount(info, &count));
  check(ort->GetTensorMutableData(out, &data));
  fwrite(data, sizeof(float), count, stdout);
  fprintf(stderr, "%s\n", base->GetVersionString());
  return 0;
}
