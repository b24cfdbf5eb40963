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

}  // namespace

CUtensorMap RowMap(const HalfRows& a, int groups, int rows, int coordinates) {
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(a.groups), static_cast<cuuint64_t>(a.rows), kGroup};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(a.row_stride) * 2, static_cast<cuuint64_t>(a.coordinate_stride) * 2};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(groups), static_cast<cuuint32_t>(rows), static_cast<cuuint32_t>(coordinates)};
  const cuuint32_t steps[] = {1, 1, 1};
  CUtensorMap map;
  if (Encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 3, const_cast<__half*>(a.data), sizes, strides, box, steps,
                CU_TENSOR_MAP_INTERLEAVE_NONE, groups == 64 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) != CUDA_SUCCESS)
    throw Error("the driver encodes no tensor map of the activations");
  return map;
}

}  // namespace cosetq::cuda
