// A coded weight on the device.

#ifndef COSETQ_CUDA_WEIGHT_H_
#define COSETQ_CUDA_WEIGHT_H_

#include <memory>
#include <vector>

#include "cpu/weight.h"
#include "memory.h"
#include "views.h"

namespace cosetq::cuda {

class DeviceWeight {
 public:
  // Checks the spec as the CPU kernels do, and uploads and packs it. Throws an Error.
  static std::unique_ptr<DeviceWeight> Create(const WeightSpec& spec);

  // The rows of both, one weight's after the other's; null where one kernel cannot multiply by them: of other codecs, columns or rotations, in
  // another layout than the packed one, or where a tile would have rows of both.
  static std::unique_ptr<DeviceWeight> Join(const DeviceWeight& first, const DeviceWeight& second);

  bool packed() const { return packed_; }
  const PackedView& packed_view() const { return packed_view_; }    // if packed
  const GeneralView& general_view() const { return general_view_; }  // if not
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  const Turn& turn() const { return turn_; }
  size_t bytes() const;

 private:
  void SetGeneral(const WeightView& w, size_t entries);
  void SetRows(int64_t rows);
  bool SetPacked(const WeightView& w);
  bool SetBlocks(const WeightView& w, const std::vector<int>& gains);

  int64_t rows_ = 0, cols_ = 0;
  bool packed_ = false;
  PackedView packed_view_ = {};
  GeneralView general_view_ = {};
  Turn turn_ = {};
  Buffer<unsigned char> codes_, gains_, panels_;
  Buffer<uint32_t> byte_tables_[2], point_tables_[2];  // fine, coarse
  Buffer<int32_t> words_;
  Buffer<Slot> slots_;
  Buffer<float> level_weights_, scales_, offsets_, factors_;
};

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_WEIGHT_H_
