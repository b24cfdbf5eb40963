// Codes rows of weights with a codec of D4 or of the integers: what the package lattice does, to the bit, as fast as
// this processor can.

#ifndef COSETQ_CPU_ENCODE_H_
#define COSETQ_CPU_ENCODE_H_

#include <memory>
#include <vector>

#include "cosetq/cosetq.h"
#include "encode_view.h"

namespace cosetq {

class Encoder {
 public:
  // Copies the codec; leaders as cosetq_encoder_create has them. Null for a codec without kernels,
  // see there.
  static std::unique_ptr<Encoder> Create(const cosetq_codec& codec, const int32_t* leaders);
  Encoder(const Encoder&) = delete;

  const EncoderView& view() const { return view_; }

  // Codes the work but for items with a step or a weight that the encoder does not take; their sse
  // is then -1. Returns how many those are.
  int64_t Encode(const EncodeWork& work) const;

  // Codes groups whose numbers are finite and below 2^40 steps; a step of 0 codes zeros.
  void EncodeInMetric(const MetricWork& work) const;

 private:
  Encoder() = default;
  void SetLevels(const cosetq_codec& codec, const int32_t* leaders);
  bool Takes(const EncodeWork& work, int64_t item) const;

  EncoderView view_{};
  std::vector<uint32_t> leaders_[kEncodeLevels];
  ResidueTables residues_[kEncodeLevels] = {};
  alignas(64) uint8_t columns_[kEncodeLevels][kEncodeDim * 256] = {};
};

}  // namespace cosetq

#endif  // COSETQ_CPU_ENCODE_H_
