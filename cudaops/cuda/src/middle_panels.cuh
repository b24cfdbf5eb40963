// The panels that a warp of the kernel of middle.cuh takes, and two ways in which they come.

#ifndef COSETQ_CUDA_MIDDLE_PANELS_CUH_
#define COSETQ_CUDA_MIDDLE_PANELS_CUH_

#include <type_traits>

#include "middle_share.cuh"
#include "panel_ring.cuh"

namespace cosetq::cuda {
namespace {

// The panels of a warp in the order in which it takes them.
class BandPanels {
 public:
  __device__ __forceinline__ BandPanels(const PackedView& w, const MiddleShare& share, int warp)
      : w_(w), share_(share), group_(warp / 4), tile_(warp % 4), pass_(share.first_band) {
    BeginPass();
  }

  __device__ __forceinline__ bool Next(const unsigned char*& panel) {
    if (left_ == 0 && !NextBand()) return false;
    --left_;
    panel = at_;
    at_ += stride_;
    return true;
  }

 private:
  __device__ __forceinline__ void BeginPass() {
    const BandCuts cuts = share_.Pass(pass_);
    const int item = cuts.Begin(group_), band = cuts.BandOf(item);
    rest_ = cuts.Begin(group_ + 1) - item;
    band_ = pass_ + band;
    chunk_ = item - band * share_.chunks;
  }
  __device__ __forceinline__ bool NextBand() {
    while (rest_ == 0) {
      if (pass_ + share_.together >= share_.last_band) return false;
      pass_ += share_.together;
      BeginPass();
    }
    left_ = min(share_.chunks - chunk_, rest_);
    // Warps past the last tile multiply another's weights, since all of a warp group must come along.
    const TilePanels panels(w_, min(band_ * kBandTiles + tile_, w_.tiles - 1));
    at_ = panels[share_.first_chunk + chunk_];
    stride_ = panels.stride;
    rest_ -= left_;
    ++band_;
    chunk_ = 0;
    return true;
  }

  const PackedView& w_;
  const MiddleShare& share_;
  int group_, tile_, pass_;
  int rest_, band_, chunk_;    // of the pass: items that are not begun, and the first one of them
  int left_ = 0, stride_ = 0;  // of the band begun
  const unsigned char* at_ = nullptr;
};

// Through a ring in shared memory. Half of it is asked for before the activations are there: requests for weights delay those for the
// activations, which all products wait for.
template <Form kForm>
class StagedPanels {
  static constexpr int kDepth = PanelVectors(kForm) == 2 ? 4 : 2, kEarly = kDepth / 2;
  using Ring = PanelRing<kForm, kDepth, false, BandPanels>;

 public:
  static constexpr int kBytes = Ring::kBytes;  // of shared memory

  __device__ __forceinline__ StagedPanels(uint32_t shared, const BandPanels& source, int lane) : ring_(shared, 0, source, lane) {
#pragma unroll
    for (int i = 0; i < kEarly; ++i) ring_.Fetch(i);
  }
  __device__ __forceinline__ void FetchRest() {
#pragma unroll
    for (int i = kEarly; i < kDepth; ++i) ring_.Fetch(i);
  }

  // Gives the next panel, a byte per step of each row for gains.
  __device__ __forceinline__ void Take(const ByteView& bytes, uint32_t (&gains)[2][2]) { ring_.Take(bytes, codes_, gains); }
  __device__ __forceinline__ const PanelCodes<kForm>& Codes() const { return codes_; }
  // A step of it is decoded; all of it is multiplied.
  template <int kStep>
  __device__ __forceinline__ void Decoded() {}
  __device__ __forceinline__ void Advance() { ring_.Advance(); }

 private:
  Ring ring_;
  PanelCodes<kForm> codes_;
};

// Straight to registers, each as soon as it is free of what has been decoded, which leaves shared memory for more columns or sums. There is
// no more than one panel on its way, and it comes later.
template <Form kForm>
class DirectPanels {
  static constexpr int kVectors = PanelVectors(kForm);

 public:
  static constexpr int kBytes = 0;

  __device__ __forceinline__ DirectPanels(uint32_t, const BandPanels& source, int lane) : lane_(lane), source_(source) {
    Next();
#pragma unroll
    for (int i = 0; i < kVectors; ++i) Load(i);
  }
  __device__ __forceinline__ void FetchRest() {}

  __device__ __forceinline__ void Take(const ByteView& bytes, uint32_t (&gains)[2][2]) {
    ExpandGains(bytes.gains, gains_, gains);
    Next();
  }
  __device__ __forceinline__ const PanelCodes<kForm>& Codes() const { return codes_; }
  template <int kStep>
  __device__ __forceinline__ void Decoded() {
    constexpr int kOfVector = kForm == Form::kTwoByte ? 2 : 4;  // steps whose digits of one level are in one
    if constexpr (kStep % kOfVector == kOfVector - 1) Load(kStep / kOfVector);
    if constexpr (kForm == Form::kNibbleByte && kStep == kPanelSteps - 1) Load(kVectors - 1);
  }
  __device__ __forceinline__ void Advance() {}

 private:
  __device__ __forceinline__ void Next() {
    const unsigned char* panel;
    more_ = source_.Next(panel);
    if (!more_) return;
    at_ = panel + lane_ * 16;
    asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(gains_) : "l"(panel + kVectors * 512 + lane_ * 4));
  }
  // Now, and not where it is needed.
  __device__ __forceinline__ void Load(int i) {
    uint32_t* const to = codes_.words + 4 * i;
    if (more_) asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "l"(at_ + i * 512));
  }

  int lane_;
  bool more_;
  const unsigned char* at_;
  uint32_t gains_;  // as they are stored
  PanelCodes<kForm> codes_;
  BandPanels source_;
};

template <Form kForm, bool kDirect>
using MiddlePanels = std::conditional_t<kDirect, DirectPanels<kForm>, StagedPanels<kForm>>;

}  // namespace
}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_MIDDLE_PANELS_CUH_
