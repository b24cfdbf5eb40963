/* Loads a model quantized by cosetq with its native library: run MODEL LIBRARY
 *
 * cc run.c -I<onnxruntime>/include -L<onnxruntime>/lib -lonnxruntime -o run
 */

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
  size_t inputs;
  if (argc != 3) {
    fprintf(stderr, "usage: %s MODEL LIBRARY\n", argv[0]);
    return 2;
  }
  ort = OrtGetApiBase()->GetApi(24);
  if (ort == NULL) {
    fprintf(stderr, "needs ONNX Runtime 1.24 or later\n");
    return 1;
  }
  check(ort->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "cosetq", &env));
  check(ort->CreateSessionOptions(&options));
  /* libcosetq.so runs the ops of the domain ai.coset */
  check(ort->RegisterCustomOpsLibrary_V2(options, argv[2]));
  check(ort->CreateSession(env, argv[1], options, &session));
  check(ort->SessionGetInputCount(session, &inputs));
  printf("%s: %zu inputs; call Run as for any model\n", argv[1], inputs);
  ort->ReleaseSession(session);
  ort->ReleaseSessionOptions(options);
  ort->ReleaseEnv(env);
  return 0;
}
