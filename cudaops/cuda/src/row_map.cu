#include "row_map.h"

#include "errors.h"
#include "views.h"

namespace cosetq::cuda {
namespace {

// The encoder of tensor maps, which belongs to the driver.
decltype(&cuTensorMapEncodeTiled) Encoder() {
  static const auto encoder = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result;
    Check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &result),
          "find the driver's encoder of tensor maps");
    if (result != cudaDriverEntryPointSuccess) throw Error("the driver has no encoder of tensor maps; it must be of CUDA 12.0 or later");
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
  }();
  return encoder;
}

template <int kDimensions>
CUtensorMap Map(const __half* data, const cuuint64_t (&sizes)[kDimensions], const cuuint64_t (&strides)[kDimensions - 1],
                const cuuint32_t (&box)[kDimensions], CUtensorMapSwizzle swizzle) {
  cuuint32_t steps[kDimensions];
  for (cuuint32_t& step : steps) step = 1;
  CUtensorMap map;
  if (Encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, kDimensions, const_cast<__half*>(data), sizes, strides, box, steps,
                CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) != CUDA_SUCCESS)
    throw Error("the driver encodes no tensor map of what a kernel is to fetch");
  return map;
}

}  // namespace

CUtensorMap RowMap(const HalfRows& a, int groups, int rows, int coordinates) {
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(a.groups), static_cast<cuuint64_t>(a.rows), kGroup};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(a.row_stride) * 2, static_cast<cuuint64_t>(a.coordinate_stride) * 2};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(groups), static_cast<cuuint32_t>(rows), static_cast<cuuint32_t>(coordinates)};
  return Map<3>(a.data, sizes, strides, box, groups == 64 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B);
}

CUtensorMap HeadMap(const __half* data, const int64_t (&sizes)[4], const int64_t (&strides)[3], int rows) {
  cuuint64_t all[4], steps[3];
  for (int i = 0; i < 4; ++i) all[i] = static_cast<cuuint64_t>(sizes[i]);
  // Of a single row, head or batch nobody asks for the next.
  for (int i = 0; i < 3; ++i) steps[i] = sizes[i + 1] > 1 ? static_cast<cuuint64_t>(strides[i]) * 2 : 16;
  const cuuint32_t box[] = {64, static_cast<cuuint32_t>(rows), 1, 1};
  return Map<4>(data, all, steps, box, CU_TENSOR_MAP_SWIZZLE_128B);
}

}  // namespace cosetq::cuda
