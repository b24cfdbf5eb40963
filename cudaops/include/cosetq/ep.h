/* What the execution provider of libcosetq_cuda tells about itself, beside what ONNX Runtime asks of it
 * (CreateEpFactories and ReleaseEpFactory, which RegisterExecutionProviderLibrary calls). The functions
 * may be called from any thread. */

#ifndef COSETQ_EP_H_
#define COSETQ_EP_H_

#include <stdint.h>

#include "cosetq.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The two functions below write text closed by a NUL if it fits, and return the bytes it takes. */

/* The name of the device and problem 0; or why there is none, and problem 1. */
COSETQ_EXPORT int64_t cosetq_ep_device(char* out, int64_t capacity, int64_t* problem);

/* Where the nodes went of the model that was loaded last: a line for each with its name, its operator
 * and why it is left to another provider, apart by tabs; the last is empty for nodes on the device. */
COSETQ_EXPORT int64_t cosetq_ep_placement(char* out, int64_t capacity);

/* Copies between host and device in the middle of what runs on the device, since the library was
 * loaded. Inputs and outputs of models do not count. */
struct cosetq_ep_traffic {
  int64_t runs;
  int64_t uploads, upload_bytes;
  int64_t downloads, download_bytes;
};
COSETQ_EXPORT void cosetq_ep_traffic(struct cosetq_ep_traffic* out);

/* How many of the runs repeated a recorded one as a whole, instead of launching kernel after kernel. */
COSETQ_EXPORT int64_t cosetq_ep_repeats(void);

/* How many operators were found in pieces, products of the same rows and sums with their norms among them, and how many elementwise nodes became part
 * of the one behind them, in all sessions since the library was loaded. */
COSETQ_EXPORT void cosetq_ep_joined(int64_t* patterns, int64_t* elementwise);

/* Which kernels attentions were started with since the library was loaded; recorded runs that are repeated do not count again. */
struct cosetq_ep_attentions {
  int64_t rows;   /* one row of the result at a time: on the host, and heads wider than 256 */
  int64_t few;    /* a few queries */
  int64_t tiles;  /* many, by warps */
  int64_t groups; /* many of float16, by the warp groups of Hopper */
};
COSETQ_EXPORT void cosetq_ep_attentions(struct cosetq_ep_attentions* out);

/* How many copies were started since then that do no more than have a tensor's numbers lie in another order. */
COSETQ_EXPORT int64_t cosetq_ep_moves(void);

/* Memory of the device that is free, in bytes; 0 where that is not known. */
COSETQ_EXPORT int64_t cosetq_ep_free_memory(void);

/* Memory of the device that coded weights take in all sessions that there are, in bytes. Layers with the same weight, such as those of both branches of an
 * If, share it. */
COSETQ_EXPORT int64_t cosetq_ep_weight_bytes(void);

#ifdef __cplusplus
}
#endif

#endif /* COSETQ_EP_H_ */
