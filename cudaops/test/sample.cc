#include "sample.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <thread>

#include "cpu/half.h"

namespace cosetq::test {

const std::vector<Codec>& Codecs() {
  static const std::vector<Codec> codecs = {
      {"d4:4,4",
       4,
       4,
       1,
       256,
       {1, 4},
       {{0, 1, 2, 3}, {1, 1, 1, 1}, {256, 256, 256, 256}, {0, 0, 0, 0}}},
      {"d4:2,4",
       4,
       3,
       1,
       272,
       {1, 2},
       {{0, 0, 1, 2}, {1, 16, 1, 1}, {16, 16, 256, 256}, {256, 256, 0, 0}}},
      {"d4:4", 4, 2, 1, 256, {1}, {{0, 1}, {1, 1}, {256, 256}, {0, 0}}},
      // Two tables where d4:4,4 has one: decoded like it, but not by shared look-up tables.
      {"d4:4,4 apart",
       4,
       4,
       1,
       512,
       {1, 4},
       {{0, 1, 2, 3}, {1, 1, 1, 1}, {256, 256, 256, 256}, {0, 0, 256, 256}}},
      {"d4:3,3", 4, 4, 1, 81, {1, 3}, {{0, 1, 2, 3}, {1, 1, 1, 1}, {81, 81, 81, 81}, {0, 0, 0, 0}}},
      {"d4:16", 4, 2, 2, 65536, {1}, {{0, 1}, {1, 1}, {65536, 65536}, {0, 0}}},
      {"e8:2,2", 8, 2, 1, 256, {0.5, 1}, {{0, 1}, {1, 1}, {256, 256}, {0, 0}}},
      {"e8:2,3", 8, 2, 2, 6817, {0.5, 1}, {{0, 1}, {1, 1}, {256, 6561}, {0, 256}}},
      {"z2:3,3",
       2,
       4,
       1,
       9,
       {1, 3},
       {{0, 0, 1, 1, 2, 2, 3, 3},
        {1, 16, 1, 16, 1, 16, 1, 16},
        {9, 9, 9, 9, 9, 9, 9, 9},
        {0, 0, 0, 0, 0, 0, 0, 0}}},
      {"z1:4",
       1,
       2,
       1,
       4,
       {1},
       {{0, 0, 0, 0, 1, 1, 1, 1},
        {1, 4, 16, 64, 1, 4, 16, 64},
        {4, 4, 4, 4, 4, 4, 4, 4},
        {0, 0, 0, 0, 0, 0, 0, 0}}},
      {"z1:16",
       1,
       4,
       1,
       16,
       {1},
       {{0, 0, 1, 1, 2, 2, 3, 3},
        {1, 16, 1, 16, 1, 16, 1, 16},
        {16, 16, 16, 16, 16, 16, 16, 16},
        {0, 0, 0, 0, 0, 0, 0, 0}}},
  };
  return codecs;
}

const Codec& CodecNamed(const std::string& name) {
  for (const Codec& c : Codecs()) {
    if (name == c.name) return c;
  }
  std::fprintf(stderr, "no codec %s\n", name.c_str());
  std::abort();
}

namespace {

// The writer's rule: the largest tile that wastes at most 0.2 % of the rows.
int64_t TileFor(int64_t rows) {
  for (int64_t t = kTile; t > 1; --t) {
    if (((rows + t - 1) / t * t - rows) * 500 <= rows) return t;
  }
  return 1;
}

}  // namespace

template <typename T>
const T* Sample::Fill(TensorSpec* tensor, std::vector<int64_t> shape, int64_t low, int64_t high) {
  size_t count = 1;
  for (int64_t d : shape) count *= static_cast<size_t>(d);
  std::vector<unsigned char> bytes(count * sizeof(T));
  std::uniform_int_distribution<int64_t> value(low, high);
  for (size_t i = 0; i < count; ++i) {
    const T v = static_cast<T>(value(random_));
    std::memcpy(&bytes[i * sizeof(T)], &v, sizeof(T));
  }
  memory_.push_back(std::move(bytes));
  tensor->data = memory_.back().data();
  tensor->shape = std::move(shape);
  return reinterpret_cast<const T*>(tensor->data);
}

Sample::Sample(const Codec& codec, int64_t rows, int64_t cols, const Options& options,
               uint64_t seed)
    : codec_(codec), options_(options), random_(seed) {
  WeightSpec& s = spec_;
  const int64_t groups = (cols + 7) / 8, tile = TileFor(rows), tiles = (rows + tile - 1) / tile;
  s.rows = rows;
  s.cols = cols;
  s.code_bytes = codec.code_bytes;
  s.half_bias = options.half;
  if (codec.code_bytes == 1) {
    Fill<uint8_t>(&s.codes, {tiles, groups, codec.elements, tile}, 0, 255);
  } else {
    Fill<uint16_t>(&s.codes, {tiles, groups, codec.elements, tile}, 0, 65535);
  }
  Fill<int8_t>(&s.codebook, {codec.entries, codec.dim}, -3, 3);
  if (options.consecutive) {
    auto* book = reinterpret_cast<int8_t*>(memory_.back().data());
    std::iota(book, book + codec.entries, static_cast<int8_t>(-codec.entries / 2));
    std::shuffle(book, book + codec.entries, random_);
  }
  const int64_t fields = static_cast<int64_t>(codec.slots[0].size());
  s.slots_shape = {schema::kSlotFields, fields};
  for (const auto& row : codec.slots) s.slots.insert(s.slots.end(), row.begin(), row.end());
  for (float w : codec.level_weights) s.level_weights.push_back(w * 0x1p-9f);
  std::uniform_real_distribution<float> unit(-1, 1);
  const auto centre = [&] {
    const float x = unit(random_) * options.centre;
    return (options.centre_step > 0 ? std::round(x / options.centre_step) * options.centre_step : x) * 0x1p-9f;
  };
  for (int j = 0; j < kGroup; ++j)
    s.centre.push_back(j < codec.dim ? centre() : s.centre[static_cast<size_t>(j - codec.dim)]);

  s.gain_values = options.gains;
  const int64_t per_byte = options.gains.size() == 2 ? 8 : options.gains.size() == 4 ? 4 : 2;
  if (options.gains.size() == 1) {
    s.gain_divisors = {1};
    Fill<uint8_t>(&s.gains, {1, 1, 1}, 0, 0);
  } else {
    for (int64_t i = 0; i < per_byte; ++i)
      s.gain_divisors.push_back(static_cast<float>(1 << (i * 8 / per_byte)));
    Fill<uint8_t>(&s.gains, {tiles, (groups + per_byte - 1) / per_byte, tile}, 0, 255);
  }
  const int64_t low = FloatToHalf(0.01f), high = FloatToHalf(1.0f);
  if (options.direct_scales) {
    s.scale_divisors = {1};
    Fill<uint16_t>(&s.scales, {1, rows}, low, high);
    Fill<uint8_t>(&s.scale_index, {1}, 0, 0);
  } else {
    s.scale_divisors = {1, 16};
    Fill<uint16_t>(&s.scales, {16, 1}, low, high);
    Fill<uint8_t>(&s.scale_index, {(rows + 1) / 2}, 0, 255);
  }
  const std::vector<int64_t> bias_shape = {options.bias ? rows : 1};
  if (options.half) {
    Fill<uint16_t>(&s.bias, bias_shape, options.bias ? low : 0, options.bias ? high : 0);
  } else {
    Fill<float>(&s.bias, bias_shape, options.bias ? -3 : 0, options.bias ? 3 : 0);
  }
}

std::vector<double> Sample::Decode() const {
  const WeightSpec& s = spec_;
  const int64_t groups = (s.cols + 7) / 8, tile = s.codes.shape[3];
  const int64_t per_byte = static_cast<int64_t>(s.gain_divisors.size());
  const size_t slots = codec_.slots[0].size();
  const auto* book = static_cast<const int8_t*>(s.codebook.data);
  const auto* scale_index = static_cast<const uint8_t*>(s.scale_index.data);
  const auto* scales = static_cast<const uint16_t*>(s.scales.data);
  const auto* gains = static_cast<const uint8_t*>(s.gains.data);
  std::vector<double> out(static_cast<size_t>(s.rows * s.cols));
  for (int64_t n = 0; n < s.rows; ++n) {
    const int64_t t = n / tile, r = n % tile;
    const int64_t at = options_.direct_scales ? n : scale_index[n / 2] >> (4 * (n % 2)) & 15;
    for (int64_t g = 0; g < groups; ++g) {
      double v[kGroup] = {};
      for (size_t i = 0; i < slots; ++i) {
        const int64_t code_at =
            ((t * groups + g) * codec_.elements + static_cast<int64_t>(codec_.slots[0][i])) * tile +
            r;
        const int code = s.code_bytes == 1 ? static_cast<const uint8_t*>(s.codes.data)[code_at]
                                           : static_cast<const uint16_t*>(s.codes.data)[code_at];
        const int digit =
            code / static_cast<int>(codec_.slots[1][i]) % static_cast<int>(codec_.slots[2][i]);
        const int entry = digit + static_cast<int>(codec_.slots[3][i]);
        const size_t per_level = static_cast<size_t>(kGroup / codec_.dim);
        for (int j = 0; j < codec_.dim; ++j) {
          v[static_cast<int>(i % per_level) * codec_.dim + j] +=
              static_cast<double>(s.level_weights[i / per_level]) * book[entry * codec_.dim + j];
        }
      }
      double gain = s.gain_values[0];
      if (s.gain_values.size() > 1) {
        const int64_t byte =
            gains[(t * ((groups + per_byte - 1) / per_byte) + g / per_byte) * tile + r];
        const auto divisor =
            static_cast<int64_t>(s.gain_divisors[static_cast<size_t>(g % per_byte)]);
        gain = s.gain_values[static_cast<size_t>(byte / divisor) % s.gain_values.size()];
      }
      for (int64_t j = 0; j < kGroup; ++j) {
        const int64_t column = j * groups + g;
        if (column >= s.cols) continue;
        out[static_cast<size_t>(n * s.cols + column)] =
            HalfToFloat(scales[at]) * gain *
            (v[j] - static_cast<double>(s.centre[static_cast<size_t>(j)]));
      }
    }
  }
  return out;
}

double Sample::Bias(int64_t row) const {
  const int64_t at = options_.bias ? row : 0;
  if (options_.half) return HalfToFloat(static_cast<const uint16_t*>(spec_.bias.data)[at]);
  return static_cast<const float*>(spec_.bias.data)[at];
}

TestHost::~TestHost() {
  for (void* block : blocks_) std::free(block);
}

bool TestHost::ParallelFor(void (*body)(void*, size_t), size_t total, void* data) {
  if (!reverse_) {
    for (size_t i = 0; i < total; ++i) body(data, i);
    return true;
  }
  std::atomic<size_t> left{total};
  const auto work = [&] {
    for (size_t n; (n = left.fetch_sub(1)) - 1 < total;) body(data, n - 1);
  };
  std::thread other(work);
  work();
  other.join();
  return true;
}

void* TestHost::Allocate(size_t bytes) {
  // Poisoned, so that memory read before it is written shows in the results.
  void* block = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  std::memset(block, 0xff, (bytes + 63) / 64 * 64);
  blocks_.push_back(block);
  return block;
}

}  // namespace cosetq::test
