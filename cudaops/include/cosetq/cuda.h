/* The C interface of libcosetq_cuda, the kernels of cosetq for NVIDIA GPUs (compute capability 8.0 or
 * later). It needs no ONNX Runtime, and no CUDA toolkit beside the driver.
 *
 * Functions that return int return 0, or -1 and leave a message for cosetq_cuda_error. All work goes
 * to the device that is current in the calling thread, in the order of the given stream, a
 * cudaStream_t (null for the default stream), and may be captured in a CUDA graph unless a function
 * says otherwise. Functions may be called from any thread. */

#ifndef COSETQ_CUDA_H_
#define COSETQ_CUDA_H_

#include <stddef.h>
#include <stdint.h>

#include "cosetq.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Why the last call of this thread that failed did so. Never null. */
COSETQ_EXPORT const char* cosetq_cuda_error(void);

/* The number of devices that the kernels run on; 0 also where there is no driver, and then
 * cosetq_cuda_error says why. */
COSETQ_EXPORT int cosetq_cuda_device_count(void);

/* Element types, with ONNX's numbers. */
enum { COSETQ_FLOAT = 1, COSETQ_FLOAT16 = 10 };

/* A tensor in host memory that holds as many elements as the shape says. */
struct cosetq_tensor {
  const void* data;
  int32_t rank;
  int64_t shape[4];
};

struct cosetq_floats {
  const float* values;
  int64_t count;
};

/* The constant inputs and the attributes of a node HNLQLinear, as docs/format.md describes them. */
struct cosetq_linear_node {
  int64_t rows, cols; /* attributes N and K */
  int32_t code_bytes; /* of an element of codes: 1 or 2 */
  int32_t bias_type;  /* COSETQ_FLOAT or COSETQ_FLOAT16 */
  struct cosetq_tensor codes, scales, scale_index, codebook, gains, bias;
  struct cosetq_floats slots; /* all of them, row after row */
  struct cosetq_floats level_weights, centre, gain_values, gain_divisors, scale_divisors;
  struct cosetq_tensor signs;    /* all zero where the node has no rotation */
  struct cosetq_floats rotation; /* likewise */
};

struct cosetq_cuda_weight;

/* Checks the node and brings its weight to the device, repacked for the kernels. Nothing of the node is
 * needed afterwards. Waits for the device; not for graphs. */
COSETQ_EXPORT int cosetq_cuda_weight_create(const struct cosetq_linear_node* node,
                                            struct cosetq_cuda_weight** weight);
/* A weight of the rows of both, the first's, then the second's, so that one call multiplies by them; *joined is null where there is none: of other
 * codecs, columns or rotations, or where the first has no multiple of 16 rows. Neither is needed afterwards. Waits for the device; not for graphs. */
COSETQ_EXPORT int cosetq_cuda_weight_join(const struct cosetq_cuda_weight* first, const struct cosetq_cuda_weight* second,
                                          struct cosetq_cuda_weight** joined);
COSETQ_EXPORT void cosetq_cuda_weight_free(struct cosetq_cuda_weight* weight);

/* Device memory that the weight takes, in bytes. */
COSETQ_EXPORT int64_t cosetq_cuda_weight_bytes(const struct cosetq_cuda_weight* weight);

/* Y = A * W^T + bias on device memory: A [batch, K], Y [batch, N], both of one type. */
struct cosetq_linear_call {
  const void* a;
  void* y;
  int64_t batch;
  int32_t type;     /* COSETQ_FLOAT or COSETQ_FLOAT16 */
  int32_t accuracy; /* 0 or 1: activations of 16 bits; 4: of 8 bits where that is faster */
  void* workspace;  /* device memory, aligned to 256 bytes, for this call alone */
  int64_t workspace_bytes;
};

/* The workspace that a call of this batch, type and accuracy takes, in bytes; may be 0, and is -1 if the device fails. */
COSETQ_EXPORT int64_t cosetq_cuda_linear_workspace(const struct cosetq_cuda_weight* weight,
                                                   int64_t batch, int32_t type, int32_t accuracy);

COSETQ_EXPORT int cosetq_cuda_linear(const struct cosetq_cuda_weight* weight,
                                     const struct cosetq_linear_call* call, void* stream);

/* Writes the weights [N, K], scales included, to device memory. */
COSETQ_EXPORT int cosetq_cuda_decode(const struct cosetq_cuda_weight* weight, void* out, int32_t type,
                                     void* stream);

/* Writes rows of the weight, scales included, to out [count, K]: those that indices name, integers of index_bytes, 4 or 8, which
 * count from the end where they are negative. All of it is device memory. A row that the weight does not have is zero. */
COSETQ_EXPORT int cosetq_cuda_gather(const struct cosetq_cuda_weight* weight, const void* indices, int32_t index_bytes,
                                     int64_t count, void* out, int32_t type, void* stream);

/* Value look-up tables, as operations of their own; for codecs of D4 with byte digits, the presets among them.
 *
 * One-sided: y [N] holds the inner products of the weight's rows with query [K], both floats on the device, by look-ups in
 * tables of the products of all codewords with the query. The workspace is device memory. */
COSETQ_EXPORT int64_t cosetq_cuda_vlut_workspace(const struct cosetq_cuda_weight* weight);
COSETQ_EXPORT int cosetq_cuda_vlut(const struct cosetq_cuda_weight* weight, const float* query, float* y, void* workspace,
                                   void* stream);

/* Two-sided: y [N of a, N of b], on the device, holds the inner products of the rows of two weights of one codec, by
 * look-ups in the table of the products of all pairs of codewords. */
COSETQ_EXPORT int cosetq_cuda_vlut_pairs(const struct cosetq_cuda_weight* a, const struct cosetq_cuda_weight* b, float* y,
                                         void* stream);

/* The encoder of cosetq.h on the GPU: the same codecs, the same results to the bit. */
struct cosetq_cuda_encoder;

/* Null for a codec that is not supported, and cosetq_cuda_error says so. */
COSETQ_EXPORT struct cosetq_cuda_encoder* cosetq_cuda_encoder_create(const struct cosetq_codec* codec, const int32_t* leaders);
COSETQ_EXPORT void cosetq_cuda_encoder_free(struct cosetq_cuda_encoder* encoder);

/* cosetq_encode with host memory; -1 if the device fails. Waits for the device; not for graphs. */
COSETQ_EXPORT int64_t cosetq_cuda_encode(struct cosetq_cuda_encoder* encoder, const float* rows, int64_t groups,
                                         const int32_t* at, const float* steps, int64_t count, double* sse, uint16_t* indices,
                                         uint8_t* gains);

/* The same of rows that are asked about more than once: as long as their id, which is not 0, comes again now and then they stay on the device. All calls of
 * an id and a number of groups have the same rows, of which each names some. */
COSETQ_EXPORT int64_t cosetq_cuda_encode_again(struct cosetq_cuda_encoder* encoder, int64_t id, const float* rows, int64_t groups,
                                               const int32_t* at, const float* steps, int64_t count, double* sse,
                                               uint16_t* indices, uint8_t* gains);

/* The same for rows, steps and results on the device, row i with step i; rows begin at a multiple of 16 bytes, indices of 4. errors holds
 * count * groups floats. */
COSETQ_EXPORT int cosetq_cuda_encode_device(const struct cosetq_cuda_encoder* encoder, const float* rows, int64_t groups,
                                            const float* steps, int64_t count, double* sse, uint16_t* indices,
                                            uint8_t* gains, float* errors, void* stream);

/* Rounding with feedback, LDLQ over groups of 8 places (BlockLDLQ of QuIP#, arXiv 2402.04396), in the arithmetic of the package
 * quant and with its results to the bit, for the codecs of the encoder. Places stand in the order of coding, groups last to
 * first. */
struct cosetq_cuda_feedback;

/* lower [8 groups][8 groups] is the block unit-lower factor of the Hessian; null for one without feedback between groups.
 * metrics [groups][2][8][8]: the lower Cholesky factor of each group's metric, and what errors of its later block move its
 * earlier one by. Everything is copied to the device. Null on failure. */
COSETQ_EXPORT struct cosetq_cuda_feedback* cosetq_cuda_feedback_create(const struct cosetq_codec* codec, const int32_t* leaders,
                                                                       int64_t groups, const float* lower,
                                                                       const float* metrics);
COSETQ_EXPORT void cosetq_cuda_feedback_free(struct cosetq_cuda_feedback* feedback);

/* Codes rows [count][8 groups], row i with steps[i], all in host memory. Writes indices [count][groups][level][block], gains
 * [count][groups], errors, weight less coded weight, [count][8 groups], and losses [count] in the metrics, infinity for a row
 * whose feedback ran away. Waits for the device. */
COSETQ_EXPORT int cosetq_cuda_feedback_run(const struct cosetq_cuda_feedback* feedback, const float* rows, const float* steps,
                                           int64_t count, uint16_t* indices, uint8_t* gains, float* errors, double* losses);

/* How often a path was launched since the library was loaded: "lanes", "small", "middle", "direct", "wide", "divided", "lying",
 * "large", "general", "gather"; -1 for another name. A captured launch counts once. */
COSETQ_EXPORT int64_t cosetq_cuda_calls(const char* path);

#ifdef __cplusplus
}
#endif

#endif /* COSETQ_CUDA_H_ */
