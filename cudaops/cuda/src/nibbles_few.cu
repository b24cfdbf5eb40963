#include "nibbles_few.h"

#include "device.h"
#include "errors.h"
#include "nibbles_few.cuh"

namespace cosetq::cuda {

bool NibblesFew(const PackedView& w, const NibbleRows& a, int parts, void* y, bool half_y, cudaStream_t stream) {
  const Device& device = CurrentDevice();
  const int tiles = parts > 1 || a.rows > 8 ? 2 : 1;
  FewCut cut;
  if (!CutFew(w, a.rows, parts, tiles, device.shared_limit, &cut)) return false;
  const bool bands = cut.band < w.chunks;
  const auto kernel = tiles == 1 ? (bands ? FewNibbles<1, true> : FewNibbles<1, false>) : (bands ? FewNibbles<2, true> : FewNibbles<2, false>);
  Check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, cut.bytes), "reserve shared memory");
  LaunchOverlapped("multiply a few rows", kernel, dim3(static_cast<unsigned>(w.shares)), kFewThreads, static_cast<size_t>(cut.bytes), true,
                   stream, w, a, cut, parts, y, half_y);
  return true;
}

}  // namespace cosetq::cuda
