#include "columns_many.h"

#include <algorithm>

#include "columns_many.cuh"

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

// Slices of so many rows: groups, coordinates, rows.
CUtensorMap MapOf(const HalfRows& a, int rows) {
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(a.groups), kGroup, static_cast<cuuint64_t>(a.rows)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(a.coordinate_stride) * 2, static_cast<cuuint64_t>(a.row_stride) * 2};
  const cuuint32_t box[] = {kPairGroups, 1, static_cast<cuuint32_t>(rows)}, steps[] = {1, 1, 1};
  CUtensorMap map;
  if (Encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 3, const_cast<__half*>(a.data), sizes, strides, box, steps,
                CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) != CUDA_SUCCESS)
    throw Error("the driver encodes no tensor map of the activations");
  return map;
}

template <Form kForm, int kColumns>
void Launch(const PackedView& w, const HalfRows& a, const ManyCut& cut, const Results& y, cudaStream_t stream) {
  const auto kernel = Many<kForm, kColumns>;
  const int shared = ManySharedBytes<kColumns>(cut.splits);
  ReserveSharedMemory(kernel);
  LaunchClusters("multiply many rows", kernel, dim3(static_cast<unsigned>(cut.blocks)), kManyThreads, static_cast<size_t>(shared),
                 static_cast<unsigned>(cut.splits * cut.peers), true, stream, w, MapOf(a, kColumns / cut.peers), a.steps, cut, y);
}

// The cut that takes least by a count of cycles: of a slice, which is what the tensor cores take or what copies do; to begin, to finish a
// tile, and to add sums up.
ManyCut CutOf(const PackedView& w, int batch) {
  struct Width {
    int columns, cycles;  // of a slice
  };
  constexpr Width kWidths[] = {{256, 1060}, {128, 560}, {64, 380}};
  constexpr double kBegin = 4000, kShared = 4000;
  ManyCut best = {};
  double least = 0;
  const int processors = CurrentDevice().processors, pairs = (w.chunks + kPairPanels - 1) / kPairPanels;
  const auto take = [&](const ManyCut& cut, double cycles) {
    if (least > 0 && cycles >= least) return;
    least = cycles;
    best = cut;
  };
  for (const Width& width : kWidths) {
    const int column_tiles = (batch + width.columns - 1) / width.columns;
    const double pair = kGroup * width.cycles, finish = 19 * width.columns;
    for (const int peers : {1, 2}) {
      const int tiles = (w.tiles + kConsumerWarps * peers - 1) / (kConsumerWarps * peers) * column_tiles, teams = processors / peers;
      const int waves = (tiles + teams - 1) / teams;
      take({width.columns, 1, peers, std::min(tiles, teams) * peers}, kBegin + waves * (pairs * pair * (peers > 1 ? 0.94 : 1) + finish));
    }
    const int tiles = (w.tiles + kConsumerWarps - 1) / kConsumerWarps * column_tiles;
    for (const int splits : {2, 4, 8}) {
      if (width.columns == 256 || width.columns / splits < kPieceColumns || splits > pairs) continue;
      // Larger clusters leave some processors over.
      if (tiles * splits > processors - (splits > 2 ? 4 * splits : 0)) continue;
      take({width.columns, splits, 1, tiles * splits}, kBegin + (pairs + splits - 1) / splits * pair + finish / splits + kShared);
    }
  }
  return best;
}

template <Form kForm>
void LaunchCut(const PackedView& w, const HalfRows& a, void* y, bool half_y, const ManyCut& cut, cudaStream_t stream) {
  const auto launch = cut.columns == 256 ? Launch<kForm, 256> : cut.columns == 128 ? Launch<kForm, 128> : Launch<kForm, 64>;
  launch(w, a, cut, {y, a.rows, w.rows, half_y}, stream);
}

}  // namespace

bool ColumnsMany(const PackedView& w, const HalfRows& a, void* y, bool half_y, cudaStream_t stream) {
  if (!CurrentDevice().hopper || CurrentDevice().shared_limit < ManySharedBytes<256>(1)) return false;
  (w.form == Form::kTwoBits ? LaunchCut<Form::kTwoBits> : LaunchCut<Form::kNibbles>)(w, a, y, half_y, CutOf(w, a.rows), stream);
  return true;
}

}  // namespace cosetq::cuda
