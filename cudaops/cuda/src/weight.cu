#include "weight.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "column_bytes.cuh"
#include "device.h"

namespace cosetq::cuda {
namespace {

constexpr int64_t kMostRows = 1 << 21;  // of a packed weight

// The gain of a group of a row, as an index.
__device__ __forceinline__ uint32_t GainIndex(const GeneralView& w, int64_t row, int64_t group) {
  if (w.gains == nullptr) return 0;
  const int64_t packed = (w.groups + w.gains_per_byte - 1) / w.gains_per_byte;
  const uint32_t byte = w.gains[(row / w.tile * packed + group / w.gains_per_byte) * w.tile + row % w.tile];
  return byte >> (group % w.gains_per_byte * w.gain_bits) & ((1u << w.gain_bits) - 1);
}

// One thread per lane of a panel.
__global__ void Pack(PackedView p, GeneralView w, unsigned char* panels) {
  const int lane = threadIdx.x, tile = blockIdx.x, chunk = blockIdx.y;
  const int vectors = PanelVectors(p.form);
  unsigned char* panel = panels + (TilePanels(p, tile)[chunk] - p.panels);
  uint32_t words[16] = {}, gains = 0;
  const auto* codes = static_cast<const unsigned char*>(w.codes);
  for (int step = 0; step < kPanelSteps; ++step) {
    const int64_t group = chunk * kPanelGroups + GroupOf(p.form, step, lane % 4);
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
      gains |= GainIndex(w, row, group) << (4 * step + 2 * half);
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

// The same of single columns, as column_halves.cuh has it: codeword c less the least is nibble c of codewords.
__global__ void PackColumns(PackedView p, GeneralView w, uint64_t codewords, unsigned char* panels) {
  const int lane = threadIdx.x, tile = blockIdx.x, chunk = blockIdx.y, bits = ColumnBits(p.form), each = 8 / bits;
  unsigned char* panel = panels + (TilePanels(p, tile)[chunk] - p.panels);
  uint32_t words[16] = {}, gains = 0;
  for (int step = 0; step < kPanelSteps; ++step) {
    const int64_t group = chunk * kPanelGroups + GroupOf(p.form, step, lane % 4);
    for (int half = 0; half < 2; ++half) {
      const int64_t row = tile * kPanelRows + lane / 4 + 8 * half;
      if (row >= w.rows || group >= w.groups) continue;
      const auto* codes = static_cast<const unsigned char*>(w.codes) + (row / w.tile * w.groups + group) * w.elements * w.tile + row % w.tile;
      for (int j = 0; j < kGroup; ++j) {
        const uint32_t digit = codes[j / each * w.tile] >> (bits * (j % each)) & ((1u << bits) - 1), n = codewords >> (4 * digit) & 15;
        words[ColumnWord(p.form, j, step / 2)] |= n << DigitBit(p.form, j, step, half);
      }
      gains |= GainIndex(w, row, group) << (4 * step + 2 * half);
    }
  }
  for (int v = 0; v < PanelVectors(p.form); ++v) {
    for (int i = 0; i < 4; ++i) reinterpret_cast<uint32_t*>(panel)[(v * 32 + lane) * 4 + i] = words[4 * v + i];
  }
  reinterpret_cast<uint32_t*>(panel + PanelVectors(p.form) * 512)[lane] = gains;
}

// Panels of a weight as the tiles of another one from first on.
__global__ void CopyPanels(PackedView from, PackedView to, int first, unsigned char* panels) {
  const int tile = blockIdx.x, chunk = blockIdx.y;
  const auto* source = reinterpret_cast<const uint4*>(TilePanels(from, tile)[chunk]);
  auto* target = reinterpret_cast<uint4*>(panels + (TilePanels(to, first + tile)[chunk] - to.panels));
  for (int i = threadIdx.x; i < PanelBytes(from.form) / 16; i += 32) target[i] = source[i];
}

// Whether weights are made of bytes alike, by tables that are.
bool Alike(const ByteView& a, const ByteView& b) {
  return a.gains == b.gains && a.base == b.base && a.centres == b.centres && a.bits == b.bits && std::equal(a.rest, a.rest + kGroup, b.rest);
}
bool Alike(const PointView& a, const PointView& b) {
  return a.bias == b.bias && a.fine_bias == b.fine_bias && a.largest == b.largest && a.gains == b.gains && std::equal(a.centre, a.centre + kGroup, b.centre);
}

// Odd x times the result is 1 modulo 2^32: Newton's iteration, which doubles the bits that are right, of which x itself has 3.
uint32_t Inverse(uint32_t x) {
  uint32_t y = x;
  for (int i = 0; i < 4; ++i) y *= 2 - x * y;
  return y;
}

// Four small integers as fields of a word.
uint32_t Fields(const int v[4]) {
  uint32_t word = 0;
  for (int j = 0; j < 4; ++j) word += static_cast<uint32_t>(v[j]) << (8 * j);
  return word;
}

// What ByteView holds, and its tables.
struct Bytes {
  ByteView view = {};
  std::vector<uint32_t> fine, coarse;
};

// Weights as bytes for a sum of levels between low and high; nothing if a byte is too small for them.
std::optional<Bytes> BytesOf(Form form, const FormTables& t, const float centre[kGroup], const std::vector<int>& gains, int low, int high) {
  constexpr float kMostCentre = 1024;  // far beyond what bytes hold, and what follows stays within an int
  for (int j = 0; j < kGroup; ++j) {
    if (!(std::fabs(centre[j]) <= kMostCentre)) return {};
  }
  Bytes b;
  int rounded[4], bias[4], most_weight = 0;
  float rests = 0;
  for (int j = 0; j < 4; ++j) {
    // Both blocks have the table in common, and therefore the integer.
    rounded[j] = static_cast<int>(std::lround((centre[j] + centre[j + 4]) / 2));
    int least = 0, most = 0;
    for (const int gain : gains) {
      least = std::min(least, gain * (low - rounded[j]));
      most = std::max(most, gain * (high - rounded[j]));
    }
    if (most - least > 255) return {};
    most_weight = std::max({most_weight, -least, most});
    bias[j] = -least;
    for (int block = 0; block < 2; ++block) {
      b.view.rest[4 * block + j] = centre[4 * block + j] - static_cast<float>(rounded[j]);
      rests += std::fabs(b.view.rest[4 * block + j]);
    }
  }
  // The rounding has moved v by half a unit at most, or by as much as the centres of the blocks differ.
  const int most_gain = *std::max_element(gains.begin(), gains.end());
  const int bound = most_weight + most_gain * (1 + static_cast<int>(rests));
  while (bound >> b.view.bits != 0) ++b.view.bits;
  int factor = std::max(1, static_cast<int>(std::ceil(rests)));
  factor += factor % 2 == 0;
  const int largest_gain = factor * most_gain;
  // The kernel for many rows wants 512 times a gain as a float16 number, and sums of levels, from 0 on, in seven bits.
  if (largest_gain > 255 || most_gain > 127 || high - low > 127) return {};
  // The kernels for few rows want the sum of a panel with activations in 31 bits: of kGroup weights, and what is left of their centre;
  // and room to round it.
  if (static_cast<int64_t>(kPanelGroups) * (kGroup * most_weight + largest_gain) * 32639 >= (int64_t{1} << 31) - (1 << 29)) return {};
  for (float& x : b.view.rest) x /= static_cast<float>(factor);
  for (int i = 0; i < 4; ++i) b.view.gains |= static_cast<uint32_t>(factor * gains[static_cast<size_t>(i) % gains.size()]) << (8 * i);
  b.view.base = Fields(bias);
  const uint32_t divide = Inverse(static_cast<uint32_t>(factor));
  // The fine word less the rounded centre; where the table stands for both levels, each entry less its share.
  const uint32_t share = Fields(rounded) * (form == Form::kTwoByte ? Inverse(1 + kLevelRatio) : 1);
  const auto word = [&](int level, int c) {
    const int v[4] = {t.digits[level][0][c], t.digits[level][1][c], t.digits[level][2][c], t.digits[level][3][c]};
    return Fields(v);
  };
  for (int c = 0; c < FineDigits(form); ++c) b.fine.push_back((word(0, c) - share) * divide);
  for (int c = 0; c < 256 && form == Form::kNibbleByte; ++c) b.coarse.push_back(word(1, c) * divide);
  return b;
}

// What weights of single columns are made of.
struct Columns {
  uint64_t codewords;  // less the least, four bits each
  float centre;        // less the least codeword
  bool bytes;          // hold all weights, doubled (column_bytes.cuh)
};

// Whether codes are single columns of two bits; those of four are a form of the processor's kernels too.
bool HasTwoBits(const WeightView& w) {
  if (w.dim != 1 || w.code_bytes != 1 || w.levels != 1 || w.elements != 2) return false;
  for (int i = 0; i < kGroup; ++i) {
    const Slot& slot = w.slots[i];
    if (slot.element != i / 4 || slot.divisor != 1 << (2 * (i % 4)) || slot.modulus != 4 || slot.base != w.slots[0].base) return false;
  }
  return true;
}

// Nothing if codewords are not integers in a row, or if float16 would lose something of gain * (codeword - centre) (column_halves.cuh).
std::optional<Columns> ColumnsOf(const WeightView& w, Form form, const std::vector<int>& gains) {
  const int count = 1 << ColumnBits(form);
  std::vector<int> digits;
  for (int i = 0; i < count; ++i) digits.push_back(static_cast<int8_t>(w.words[w.slots[0].base + i]));
  const int least = *std::min_element(digits.begin(), digits.end());
  Columns c = {};
  uint32_t there = 0;
  for (int i = 0; i < count; ++i) {
    const int n = digits[static_cast<size_t>(i)] - least;
    if (n >= count) return {};
    there |= 1u << n;
    c.codewords |= static_cast<uint64_t>(n) << (4 * i);
  }
  c.centre = w.centre[0] / w.level_weights[0] - static_cast<float>(least);
  // All are whole numbers of half a unit, with room for 11 bits.
  const float twice = 2 * c.centre, most = std::max(std::fabs(twice), std::fabs(static_cast<float>(2 * count - 2) - twice));
  const float gain = static_cast<float>(*std::max_element(gains.begin(), gains.end())), largest = gain * most;
  if (there != (1u << count) - 1 || twice != std::floor(twice) || largest > 0x1p11f) return {};
  // Of the doubled centre, times a sum of eight bytes, two bytes are kept (activations.cuh). Rows g + 8 may be in a smaller unit.
  const float ratio = 1 / ColumnUnit(form, 1);
  c.bytes = twice >= 0 && twice <= 16 && ratio * largest <= 127 && ratio * 2 * gain * static_cast<float>(count - 1) <= 255;
  return c;
}

// The gains as bytes; nothing if they are none.
std::vector<int> GainsOf(const WeightView& w) {
  if (w.gains == nullptr) return {1};
  std::vector<int> gains;
  for (int i = 0; i < 1 << w.gain_bits; ++i) {
    const float gain = w.gain_values[i];
    if (!IsIntegerGain(gain)) return {};
    gains.push_back(static_cast<int>(gain));
  }
  return gains;
}

}  // namespace

std::unique_ptr<DeviceWeight> DeviceWeight::Join(const DeviceWeight& first, const DeviceWeight& second) {
  const PackedView &a = first.packed_view_, &b = second.packed_view_;
  if (!first.packed_ || !second.packed_ || a.form != b.form || a.cols != b.cols || first.turn_.block != second.turn_.block || !Alike(a.bytes, b.bytes) ||
      !Alike(a.points, b.points) || !first.factors_.Holds(second.factors_))
    return nullptr;
  for (int i = 0; i < 2; ++i) {
    if (!first.byte_tables_[i].Holds(second.byte_tables_[i]) || !first.point_tables_[i].Holds(second.point_tables_[i])) return nullptr;
  }
  if (a.rows % kPanelRows != 0 || first.rows_ + second.rows_ > kMostRows) return nullptr;
  std::unique_ptr<DeviceWeight> made(new DeviceWeight);
  made->rows_ = first.rows_ + second.rows_;
  made->cols_ = first.cols_;
  made->packed_ = true;
  made->factors_ = first.factors_.And({});
  made->turn_ = {first.turn_.block, made->factors_.get()};
  PackedView& p = made->packed_view_ = a;
  const auto copy = [](const Buffer<uint32_t>& from, Buffer<uint32_t>* to) {
    *to = from.And({});
    return to->get();
  };
  p.bytes.fine = copy(first.byte_tables_[0], &made->byte_tables_[0]);
  p.bytes.coarse = copy(first.byte_tables_[1], &made->byte_tables_[1]);
  p.points.fine = copy(first.point_tables_[0], &made->point_tables_[0]);
  p.points.coarse = copy(first.point_tables_[1], &made->point_tables_[1]);
  made->SetRows(made->rows_);
  for (const PackedView* from : {&a, &b}) {
    const dim3 grid(static_cast<unsigned>(from->tiles), static_cast<unsigned>(from->chunks));
    CopyPanels<<<grid, 32, 0, cudaStreamPerThread>>>(*from, p, from == &a ? 0 : a.tiles, made->panels_.get());
  }
  CheckLaunch("join weights");
  Check(cudaStreamSynchronize(cudaStreamPerThread), "join weights");
  made->scales_ = first.scales_.And(second.scales_);
  p.scales = made->scales_.get();
  if (a.offsets != nullptr || b.offsets != nullptr) {
    const auto offsets = [](const DeviceWeight& w) {
      return w.packed_view_.offsets != nullptr ? w.offsets_.And({}) : Buffer<float>(std::vector<float>(static_cast<size_t>(w.rows_), 0.0f));
    };
    made->offsets_ = offsets(first).And(offsets(second));
  }
  p.offsets = made->offsets_.get();
  return made;
}

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
  return made;
}

size_t DeviceWeight::bytes() const {
  return codes_.bytes() + gains_.bytes() + panels_.bytes() + byte_tables_[0].bytes() + byte_tables_[1].bytes() + point_tables_[0].bytes() +
         point_tables_[1].bytes() +
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

// Weights of blocks of four columns, as ByteView and PointView have them; false if bytes are too small for them.
bool DeviceWeight::SetBlocks(const WeightView& w, const std::vector<int>& gains) {
  const FormTables& t = *w.tables;
  if (w.form == Form::kTwoByte && (!t.shared || 1 << t.ratio_log2 != kLevelRatio)) return false;
  int low[2] = {}, high[2] = {};
  for (int level = 0; level < w.levels; ++level) {
    const int digits = level == 0 ? FineDigits(w.form) : 256;
    for (int j = 0; j < 4; ++j) {
      const int8_t* of = t.digits[level][j];
      low[level] = std::min<int>(low[level], *std::min_element(of, of + digits));
      high[level] = std::max<int>(high[level], *std::max_element(of, of + digits));
    }
  }
  PackedView& p = packed_view_;
  for (int j = 0; j < kGroup; ++j) p.points.centre[j] = w.centre[j] / w.level_weights[0];
  std::optional<Bytes> bytes = BytesOf(w.form, t, p.points.centre, gains, low[0] + low[1], high[0] + high[1]);
  if (!bytes) return false;
  p.bytes = bytes->view;
  const auto upload = [](const std::vector<uint32_t>& words, Buffer<uint32_t>* to) {
    *to = Buffer<uint32_t>(words);
    return words.empty() ? nullptr : to->get();
  };
  p.bytes.fine = upload(bytes->fine, &byte_tables_[0]);
  p.bytes.coarse = upload(bytes->coarse, &byte_tables_[1]);
  std::vector<uint32_t> words[2];
  for (int level = 0; level < (w.form == Form::kNibbleByte ? 2 : 1); ++level) {
    for (int c = 0; c < (level == 0 ? FineDigits(w.form) : 256); ++c) {
      uint32_t word = 0;
      for (int j = 0; j < 4; ++j)
        word |= static_cast<uint32_t>(t.digits[level][j][c] - low[level]) << (8 * j);
      words[level].push_back(word);
    }
  }
  p.points.fine = upload(words[0], &point_tables_[0]);
  p.points.coarse = upload(words[1], &point_tables_[1]);
  p.points.bias = -low[0] - low[1];
  p.points.fine_bias = -low[0];
  p.points.largest = std::max({-low[0], high[0], -low[1], high[1]});
  return true;
}

// Makes room for the panels of so many rows, of a form and columns that are set.
void DeviceWeight::SetRows(int64_t rows) {
  PackedView& p = packed_view_;
  p.rows = static_cast<int32_t>(rows);
  p.tiles = (p.rows + kPanelRows - 1) / kPanelRows;
  // As many shares as fill the device, or twice and so on, so that the sums of one fit shared memory.
  constexpr int kMostTiles = 16;
  const int processors = CurrentDevice().processors, waves = (p.tiles + kMostTiles * processors - 1) / (kMostTiles * processors);
  p.shares = std::min(p.tiles, waves * processors);
  p.by_tiles = Divisor(p.tiles);
  p.by_shares = Divisor(p.shares);
  panels_ = Buffer<unsigned char>(static_cast<size_t>(p.tiles) * static_cast<size_t>(p.chunks) *
                                  static_cast<size_t>(PanelBytes(p.form)));
  p.panels = panels_.get();
}

bool DeviceWeight::SetPacked(const WeightView& w) {
  const Form form = HasTwoBits(w) ? Form::kTwoBits : w.form;
  if (form == Form::kGeneral) return false;
  const std::vector<int> gain_values = GainsOf(w);
  if (gain_values.empty() || gain_values.size() > 4) return false;
  // Sums of bytes by bytes stay within 31 bits, and the numbers of tiles and panels times those of shares within 31.
  if (w.groups * kGroup > 1 << 16 || w.rows > kMostRows) return false;
  PackedView& p = packed_view_;
  p.form = form;
  std::optional<Columns> columns;
  if (IsColumns(form)) {
    if (!CurrentDevice().hopper) return false;  // what multiplies by them is Hopper's
    columns = ColumnsOf(w, form, gain_values);
    if (!columns) return false;
    std::fill_n(p.points.centre, kGroup, columns->centre);
    if (columns->bytes) {
      p.bytes.base = kBytesBias;
      p.bytes.centres = 0u - static_cast<uint32_t>(2 * columns->centre) * 0x01010101u;
      p.bytes.bits = 7;
    }
  } else if (!SetBlocks(w, gain_values)) {
    return false;
  }
  for (int i = 0; i < 4; ++i) p.points.gains |= static_cast<uint32_t>(gain_values[static_cast<size_t>(i) % gain_values.size()]) << (8 * i);
  if (columns) p.bytes.gains = p.points.gains;
  p.cols = static_cast<int32_t>(w.cols);
  p.groups = static_cast<int32_t>(w.groups);
  p.chunks = (p.groups + kPanelGroups - 1) / kPanelGroups;
  SetRows(w.rows);
  std::vector<float> scales(static_cast<size_t>(p.tiles) * kPanelRows, 0.0f);
  for (int64_t n = 0; n < w.rows; ++n)
    scales[static_cast<size_t>(n)] = w.row_scales[n] * w.level_weights[0] * (w.gains == nullptr ? w.gain_values[0] : 1) * (columns ? 0.5f : 1);
  const dim3 grid(static_cast<unsigned>(p.tiles), static_cast<unsigned>(p.chunks));
  if (columns) {
    PackColumns<<<grid, 32, 0, cudaStreamPerThread>>>(p, general_view_, columns->codewords, panels_.get());
  } else {
    Pack<<<grid, 32, 0, cudaStreamPerThread>>>(p, general_view_, panels_.get());
  }
  CheckLaunch("pack a weight");
  // Not the device, where another session may be recording, which that would end.
  Check(cudaStreamSynchronize(cudaStreamPerThread), "pack a weight");
  scales_ = Buffer<float>(scales);
  p.scales = scales_.get();
  p.offsets = general_view_.offsets;
  return true;
}

}  // namespace cosetq::cuda
