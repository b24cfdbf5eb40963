#include "weight.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace cosetq::cuda {
namespace {

// One thread per lane of a panel.
__global__ void Pack(PackedView p, GeneralView w, unsigned char* panels) {
  const int lane = threadIdx.x, tile = blockIdx.x, chunk = blockIdx.y;
  const int vectors = PanelVectors(p.form);
  unsigned char* panel = panels + (static_cast<int64_t>(tile) * p.chunks + chunk) * PanelBytes(p.form);
  uint32_t words[16] = {}, gains = 0;
  const auto* codes = static_cast<const unsigned char*>(w.codes);
  for (int step = 0; step < kPanelSteps; ++step) {
    const int64_t group = chunk * kPanelGroups + step * kStepGroups + lane % 4;
    if (group >= w.groups) break;
    uint32_t fine = 0, coarse = 0;
    for (int half = 0; half < 2; ++half) {
      const int64_t row = tile * kPanelRows + lane / 4 + 8 * half;
      if (row >= w.rows) continue;
      const int64_t t = row / w.tile, r = row % w.tile;
      const unsigned char* at = codes + (t * w.groups + group) * w.elements * w.tile + r;
      const auto element = [&](int e) { return static_cast<uint32_t>(at[e * w.tile]); };
      for (int block = 0; block < 2; ++block) {
        const int place = 8 * (2 * block + half);
        if (p.form == Form::kNibbleByte) {
          fine |= (element(0) >> (4 * block) & 15) << (place / 2);
          coarse |= element(1 + block) << place;
        } else {
          fine |= element(block) << place;
          if (p.form == Form::kTwoByte) coarse |= element(2 + block) << place;
        }
      }
      if (w.gains != nullptr) {
        const int64_t packed = (w.groups + w.gains_per_byte - 1) / w.gains_per_byte;
        const uint32_t byte = w.gains[(t * packed + group / w.gains_per_byte) * w.tile + r];
        const uint32_t index =
            byte >> (group % w.gains_per_byte * w.gain_bits) & ((1u << w.gain_bits) - 1);
        gains |= index << (4 * step + 2 * half);
      }
    }
    if (p.form == Form::kOneByte) {
      words[step] = fine;
    } else if (p.form == Form::kTwoByte) {
      words[2 * step] = fine;
      words[2 * step + 1] = coarse;
    } else {
      words[step] = coarse;
      words[8 + step / 2] |= fine << (16 * (step % 2));
    }
  }
  for (int v = 0; v < vectors; ++v) {
    for (int i = 0; i < 4; ++i)
      reinterpret_cast<uint32_t*>(panel)[(v * 32 + lane) * 4 + i] = words[4 * v + i];
  }
  reinterpret_cast<uint32_t*>(panel + vectors * 512)[lane] = gains;
}

// The weights of a codec as bytes: sums of levels between low and high, biased by bias, less centre, times gains.
ByteView BytesOf(const float centre[kGroup], const std::vector<int>& gains, int bias, int low, int high) {
  ByteView b = {};
  b.fit = true;
  float rests = 0;
  const int largest_gain = *std::max_element(gains.begin(), gains.end());
  for (int j = 0; j < kGroup; ++j) {
    const int rounded = static_cast<int>(std::lround(centre[j]));
    int least = 0, most = 0;
    for (const int gain : gains) {
      least = std::min(least, gain * (low - rounded));
      most = std::max(most, gain * (high - rounded));
    }
    b.bias[j] = -least;
    b.fit = b.fit && most - least <= 255;
    b.base[j / 4] += static_cast<uint32_t>(b.bias[j]) << (j % 4 * 8);
    b.slope[j / 4] += static_cast<uint32_t>(bias + rounded) << (j % 4 * 8);
    b.rest[j] = centre[j] - static_cast<float>(rounded);
    rests += std::fabs(b.rest[j]);
  }
  b.factor = std::max(1, static_cast<int>(std::ceil(rests)));
  b.fit = b.fit && b.factor * largest_gain <= 255;
  return b;
}

}  // namespace

std::unique_ptr<DeviceWeight> DeviceWeight::Create(const WeightSpec& spec) {
  std::string error;
  const std::unique_ptr<Weight> host = Weight::Create(spec, &error);
  if (host == nullptr) throw Error(error);
  const WeightView& w = host->view();
  std::unique_ptr<DeviceWeight> made(new DeviceWeight);
  made->rows_ = w.rows;
  made->cols_ = w.cols;
  const Rotation& rotation = host->rotation();
  made->factors_ = Buffer<float>(rotation.factors);
  made->turn_ = {static_cast<int32_t>(rotation.block), made->factors_.get()};
  made->SetGeneral(w, static_cast<size_t>(spec.codebook.shape[0]));
  if (made->SetPacked(w)) {
    made->packed_ = true;
    made->codes_ = {};
    made->gains_ = {};
    made->words_ = {};
    made->slots_ = {};
    made->level_weights_ = {};
  }
  Check(cudaDeviceSynchronize(), "pack a weight");
  return made;
}

size_t DeviceWeight::bytes() const {
  return codes_.bytes() + gains_.bytes() + panels_.bytes() + fine_.bytes() + coarse_.bytes() +
         words_.bytes() + slots_.bytes() + level_weights_.bytes() + scales_.bytes() + offsets_.bytes() +
         factors_.bytes();
}

void DeviceWeight::SetGeneral(const WeightView& w, size_t entries) {
  GeneralView& v = general_view_;
  v.rows = w.rows;
  v.cols = w.cols;
  v.groups = w.groups;
  v.tile = w.tile;
  v.elements = w.elements;
  v.code_bytes = w.code_bytes;
  v.dim = w.dim;
  v.levels = w.levels;
  const size_t codes = static_cast<size_t>(w.tiles * w.groups * w.elements * w.tile * w.code_bytes);
  codes_ = Buffer<unsigned char>(static_cast<const unsigned char*>(w.codes), codes);
  v.codes = codes_.get();
  words_ = Buffer<int32_t>(w.words, entries * (w.dim == 8 ? 2 : 1));
  v.words = words_.get();
  slots_ = Buffer<Slot>(w.slots, static_cast<size_t>(w.slot_count));
  v.slots = slots_.get();
  level_weights_ = Buffer<float>(w.level_weights, static_cast<size_t>(w.levels));
  v.level_weights = level_weights_.get();
  if (w.gains != nullptr) {
    const int64_t packed = (w.groups + w.gains_per_byte - 1) / w.gains_per_byte;
    gains_ = Buffer<unsigned char>(w.gains, static_cast<size_t>(w.tiles * packed * w.tile));
    v.gains = gains_.get();
    v.gains_per_byte = w.gains_per_byte;
    v.gain_bits = w.gain_bits;
  }
  std::copy_n(w.centre, kGroup, v.centre);
  std::copy_n(w.gain_values, schema::kMaxGains, v.gain_values);
  scales_ = Buffer<float>(w.row_scales, static_cast<size_t>(w.rows));
  v.scales = scales_.get();
  if (w.bias != nullptr) {
    offsets_ = Buffer<float>(w.bias, static_cast<size_t>(w.rows));
    v.offsets = offsets_.get();
  }
}

bool DeviceWeight::SetPacked(const WeightView& w) {
  if (w.form == Form::kGeneral || w.form == Form::kNibbles) return false;
  const FormTables& t = *w.tables;
  if (w.form == Form::kTwoByte && !t.shared) return false;
  const int gains = w.gains == nullptr ? 1 : 1 << w.gain_bits;
  if (gains > 4 || (w.gains != nullptr && !t.integer_gains)) return false;
  PackedView& p = packed_view_;
  int low[2] = {}, high[2] = {};
  for (int level = 0; level < w.levels; ++level) {
    const int digits = level == 0 ? FineDigits(w.form) : 256;
    for (int j = 0; j < 4; ++j) {
      const int8_t* of = t.digits[level][j];
      low[level] = std::min<int>(low[level], *std::min_element(of, of + digits));
      high[level] = std::max<int>(high[level], *std::max_element(of, of + digits));
    }
  }
  p.bias = -low[0] - low[1];
  p.fine_bias = -low[0];
  const int largest = w.gains == nullptr ? 1 : *std::max_element(t.gain_bytes, t.gain_bytes + gains);
  if ((p.bias + high[0] + high[1]) * largest > 255) return false;  // of a weight, in one byte
  std::vector<uint32_t> words[2];
  for (int level = 0; level < w.levels; ++level) {
    for (int c = 0; c < (level == 0 ? FineDigits(w.form) : 256); ++c) {
      uint32_t word = 0;
      for (int j = 0; j < 4; ++j)
        word |= static_cast<uint32_t>(t.digits[level][j][c] - low[level]) << (8 * j);
      words[level].push_back(word);
    }
  }
  p.form = w.form;
  p.rows = static_cast<int32_t>(w.rows);
  p.cols = static_cast<int32_t>(w.cols);
  p.groups = static_cast<int32_t>(w.groups);
  p.tiles = (p.rows + kPanelRows - 1) / kPanelRows;
  p.chunks = (p.groups + kPanelGroups - 1) / kPanelGroups;
  fine_ = Buffer<uint32_t>(words[0]);
  p.fine = fine_.get();
  if (w.form == Form::kNibbleByte) {
    coarse_ = Buffer<uint32_t>(words[1]);
    p.coarse = coarse_.get();
  }
  p.shift = t.ratio_log2;
  for (int i = 0; i < 4; ++i)
    p.gains |= (w.gains == nullptr ? 1u : static_cast<uint32_t>(t.gain_bytes[i % gains])) << (8 * i);
  const float unit = w.level_weights[0];
  for (int j = 0; j < kGroup; ++j) p.centre[j] = w.centre[j] / unit;
  std::vector<int> gain_values = {1};
  if (w.gains != nullptr) gain_values.assign(t.gain_bytes, t.gain_bytes + gains);
  p.bytes = BytesOf(p.centre, gain_values, p.bias, low[0] + low[1], high[0] + high[1]);
  std::vector<float> scales(static_cast<size_t>(p.tiles) * kPanelRows, 0.0f);
  for (int64_t n = 0; n < w.rows; ++n)
    scales[static_cast<size_t>(n)] = w.row_scales[n] * unit * (w.gains == nullptr ? w.gain_values[0] : 1);
  panels_ = Buffer<unsigned char>(static_cast<size_t>(p.tiles) * static_cast<size_t>(p.chunks) *
                                  static_cast<size_t>(PanelBytes(p.form)));
  p.panels = panels_.get();
  Pack<<<dim3(static_cast<unsigned>(p.tiles), static_cast<unsigned>(p.chunks)), 32>>>(p, general_view_,
                                                                                     panels_.get());
  CheckLaunch("pack a weight");
  Check(cudaDeviceSynchronize(), "pack a weight");
  scales_ = Buffer<float>(scales);
  p.scales = scales_.get();
  p.offsets = general_view_.offsets;
  return true;
}

}  // namespace cosetq::cuda
