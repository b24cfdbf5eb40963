// Marks functions that run on the host and, where a compiler for it reads them, on the device, and loops that the latter unrolls.

#ifndef COSETQ_HOST_DEVICE_H_
#define COSETQ_HOST_DEVICE_H_

#ifdef __CUDACC__
#define COSETQ_HD __host__ __device__
#else
#define COSETQ_HD
#endif

#ifdef __CUDA_ARCH__
#define COSETQ_UNROLL _Pragma("unroll")
#else
#define COSETQ_UNROLL
#endif

#endif  // COSETQ_HOST_DEVICE_H_
