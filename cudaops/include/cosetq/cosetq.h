/* The C interface of libcosetq, the custom-op library that runs cosetq's quantized models in ONNX
 * Runtime.
 *
 * Most programs need none of this: they give the path of the library to ONNX Runtime's session
 * options (RegisterCustomOpsLibrary_V2 in C, register_custom_ops_library in Python), which calls
 * RegisterCustomOps. */

#ifndef COSETQ_COSETQ_H_
#define COSETQ_COSETQ_H_

#include <stdint.h>

#if defined(_WIN32)
#define COSETQ_EXPORT __declspec(dllexport)
#else
#define COSETQ_EXPORT __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

struct OrtSessionOptions;
struct OrtApiBase;
struct OrtStatus;

/* Adds the domain ai.coset to the session options. Needs ONNX Runtime 1.24 or later; returns a
 * status on an older one. */
COSETQ_EXPORT struct OrtStatus* RegisterCustomOps(struct OrtSessionOptions* options,
                                                  const struct OrtApiBase* base);

/* The version of the operator that this library runs. */
COSETQ_EXPORT int cosetq_op_version(void);

/* Identifies this header and the constants it goes with: the program cosetq calls the functions below only in a library that
 * was built with its own. Models run in either. */
COSETQ_EXPORT const char* cosetq_interface(void);

/* The instruction set in use: "portable", "avx2" or "avx512". */
COSETQ_EXPORT const char* cosetq_isa(void);

/* Chooses the instruction set from now on; null or "" chooses the best one. Returns 0, or -1 when
 * there is no such instruction set here. The environment variable COSETQ_ISA does the same when the
 * library is registered. */
COSETQ_EXPORT int cosetq_set_isa(const char* name);

/* How often a kernel ran since the library was loaded: "avx512.lookup", "avx512.d4", "avx2.general"
 * and so on, an instruction set and a path. -1 for a name that does not exist. */
COSETQ_EXPORT int64_t cosetq_kernel_calls(const char* name);

/* Calibration. The operator ai.coset::Observe adds the rows of its input to what is kept here under
 * its tag, whatever session it runs in. The functions below may be called from any thread; those
 * that return int return 0, or -1 for an unknown tag, a bad range or want of memory. */

struct cosetq_observation {
  int64_t columns;         /* K */
  int64_t rows;            /* added up */
  int64_t bad_rows;        /* left out because of NaN or infinity */
  int32_t full;            /* 1: the moments are a matrix, 0: its diagonal */
  double minimum, maximum; /* of all numbers; 0 before the first row */
  double weight;           /* the sum of the rows' weights w */
};

/* Sessions that run at the same time would add rows in any order. What is observed on a thread that has a staging goes there, until
 * it is committed: added up on so many threads. It is empty then, and its memory is kept for the next run.
 * A session runs its nodes on the thread that calls it. Creating returns null, committing -1 for want of memory. */
COSETQ_EXPORT void* cosetq_observe_staging_create(void);
COSETQ_EXPORT void cosetq_observe_staging_free(void* staging);
COSETQ_EXPORT void cosetq_observe_stage(void* staging); /* null: none any more */
COSETQ_EXPORT int cosetq_observe_commit(void* staging, int32_t threads);

/* Writes all tags in order, each closed by a NUL, if they fit. Returns the bytes they take, or -1
 * for want of memory. */
COSETQ_EXPORT int64_t cosetq_observe_tags(char* out, int64_t capacity);

COSETQ_EXPORT int cosetq_observe_get(const char* tag, struct cosetq_observation* out);

/* The sum of w a over the rows a, K numbers. */
COSETQ_EXPORT int cosetq_observe_sums(const char* tag, double* out);

/* The sum of w a aT over the rows a: rows first ... last-1 of the matrix, row i as its K-i columns from
 * the diagonal on; or entries first ... last-1 of the diagonal, where that is all there is. */
COSETQ_EXPORT int cosetq_observe_moments(const char* tag, int64_t first, int64_t last, double* out);

/* Forgets one tag, or all for null. */
COSETQ_EXPORT void cosetq_observe_reset(const char* tag);

/* Coding rows of weights, what the package lattice does in Go, to the bit. All functions may be called
 * from any thread. */

/* A codec of the lattice D4 (dim 4) or of the integers (dim 1) and the constants of its encoder, as
 * lattice.Arithmetic has them. */
struct cosetq_codec {
  int32_t dim, levels, gain_count;
  int32_t radices[4]; /* the finest level first */
  float gains[16];    /* ascending */
  float centre[4];
  float reach_one, reach_two, ray_shrink, max_steps;
  int32_t max_refinements, max_overloads;
};

struct cosetq_encoder;

/* Makes an encoder; leaders holds the leaders of every class of every level, dim numbers each. Null
 * for a codec that is not supported (of D4 radices other than 2 and 4 and points too far out for 8
 * bits, of the integers all but one level with a radix of 2, 4, 8 or 16), a bad COSETQ_ISA or want of
 * memory. */
COSETQ_EXPORT struct cosetq_encoder* cosetq_encoder_create(const struct cosetq_codec* codec,
                                                           const int32_t* leaders);
COSETQ_EXPORT void cosetq_encoder_free(struct cosetq_encoder* encoder);

/* Codes rows of 8 * groups weights, row at[i], or i where at is null, with steps[i], for i < count.
 * Writes the sum of squared errors to sse[i], and unless they are null the codes to indices
 * [count][groups][level][8 / dim] and gains [count][groups]. A step or a weight that cannot be coded leaves
 * sse[i] = -1 and no codes. Returns the number of those. */
COSETQ_EXPORT int64_t cosetq_encode(const struct cosetq_encoder* encoder, const float* rows,
                                    int64_t groups, const int32_t* at, const float* steps,
                                    int64_t count, double* sse, uint16_t* indices, uint8_t* gains);

/* Codes one group of each of count rows, x [count][8] with steps [count], for the least loss in a metric
 * M = C * CT, (x - w) * M * (x - w)T; what the package quant does, to the bit. metric [2][8][8] holds C,
 * lower, and what errors of the later block move the earlier one by. Numbers must be finite and below
 * 2^40 steps; a step of 0 codes zeros. Writes the codes to indices [count][level][8 / dim] and gains [count],
 * what they stand for to weights [count][8], and losses [count]. */
COSETQ_EXPORT void cosetq_encode_in_metric(const struct cosetq_encoder* encoder, const float* x,
                                           const float* steps, const float* metric, int64_t count,
                                           uint16_t* indices, uint8_t* gains, float* weights,
                                           float* losses);

/* C [rows, columns] += A [rows, depth] * B [depth, columns], the strides being distances of rows. Every
 * product is rounded and added in the order of depth, so that the result is the same to the bit on every
 * instruction set. Returns 0, or -1 for a bad COSETQ_ISA. */
COSETQ_EXPORT int cosetq_add_product(float* c, int64_t c_stride, const float* a, int64_t a_stride,
                                     const float* b, int64_t b_stride, int64_t rows, int64_t depth,
                                     int64_t columns);
COSETQ_EXPORT int cosetq_add_product_double(double* c, int64_t c_stride, const double* a,
                                            int64_t a_stride, const double* b, int64_t b_stride,
                                            int64_t rows, int64_t depth, int64_t columns);

#ifdef __cplusplus
}
#endif

#endif /* COSETQ_COSETQ_H_ */
