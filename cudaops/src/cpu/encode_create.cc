// The tables of an encoder; without its kernels, since the GPU library has its own.

#include <algorithm>
#include <climits>
#include <cmath>

#include "encode.h"

namespace cosetq {
namespace {

// Whether the integers of a run are the leaders, each of its own class, and the search for a block that
// overloads ends at an end of it.
bool IsRun(const cosetq_codec& c, const int32_t* leaders) {
  const int q = c.radices[0];
  if (c.levels != 1 || (q != 2 && q != 4 && q != 8 && q != 16) || c.max_refinements < q - 1)
    return false;
  const int low = *std::min_element(leaders, leaders + q);
  if (low < -kEncodeBias / 2 || low > 0 || low + q <= 0) return false;
  for (int k = 0; k < q; ++k) {
    if (leaders[k] >= low + q || ((leaders[k] - k) & (q - 1)) != 0) return false;
  }
  return c.reach_one == static_cast<float>(std::max(-low, low + q - 1)) &&
         c.centre[0] >= static_cast<float>(low) - 0.5f && c.centre[0] <= static_cast<float>(low + q) - 0.5f;
}

// Whether all constants are such that no coordinate leaves its 8 bits: neither of a point near the
// reach nor of one on its way through the levels.
bool Fits(const cosetq_codec& c, const int32_t* leaders) {
  if (c.levels < 1 || c.levels > kEncodeLevels || c.gain_count < 1 ||
      c.gain_count > schema::kMaxGains || c.max_refinements < 0 || c.max_overloads < 1)
    return false;
  if (!(c.ray_shrink > 0 && c.ray_shrink < 1) || !(c.max_steps > 0)) return false;
  for (int g = 0; g < c.gain_count; ++g) {
    if (!(c.gains[g] > 0)) return false;
  }
  if (c.dim == 1) return IsRun(c, leaders);
  if (c.dim != kEncodeDim) return false;
  int product = 1;
  for (int m = 0; m < c.levels; ++m) {
    if (c.radices[m] != 2 && c.radices[m] != 4) return false;
    product *= c.radices[m];
  }
  float centre = 0;
  for (float x : c.centre) centre = std::max(centre, std::fabs(x));
  // The nearest point of the farthest y is up to 3 beyond the reach, and each level takes away at
  // most its share of the reach.
  return c.reach_one > 0 && c.reach_two > 0 && 2 * c.reach_one + centre + 4 < kEncodeBias &&
         kEncodeBias % product == 0;
}

struct Range {
  float middle, half;
};

// Between what <along, v> lies for all points v of a code: the levels' extremes, each with its weight, add up.
Range RangeOf(const cosetq_codec& c, const int32_t* leaders, const int (&along)[kEncodeDim]) {
  int low = 0, high = 0, weight = 1;
  for (int m = 0; m < c.levels; ++m) {
    int least = INT_MAX, most = INT_MIN;
    for (int k = c.radices[m] * c.radices[m] * c.radices[m] * c.radices[m]; k > 0; --k, leaders += kEncodeDim) {
      int x = 0;
      for (int j = 0; j < kEncodeDim; ++j) x += along[j] * leaders[j];
      least = std::min(least, x);
      most = std::max(most, x);
    }
    low += weight * least;
    high += weight * most;
    weight *= c.radices[m];
  }
  return {static_cast<float>(low + high) / 2, static_cast<float>(high - low) / 2};
}

CodeHull HullOf(const cosetq_codec& c, const int32_t* leaders) {
  CodeHull hull = {};
  const auto middle = [&](const int (&along)[kEncodeDim], float* half) {
    const Range range = RangeOf(c, leaders, along);
    *half = std::max(*half, range.half);
    return range.middle;
  };
  for (int i = 0, pair = 0; i < kEncodeDim; ++i) {
    int along[kEncodeDim] = {};
    along[i] = 1;
    hull.coordinate[i] = middle(along, &hull.half_coordinate);
    for (int j = i + 1; j < kEncodeDim; ++j, ++pair) {
      along[j] = 1;
      hull.sum[pair] = middle(along, &hull.half_pair);
      along[j] = -1;
      hull.difference[pair] = middle(along, &hull.half_pair);
      along[j] = 0;
    }
  }
  return hull;
}

constexpr int kRadix = 4;
constexpr int kClasses = 256;  // of radix 4

inline int Residue(int x) { return x & (kRadix - 1); }

// Fills the tables if the leaders, columns as in EncodeLevel, follow from them.
bool FillResidues(const uint8_t* columns, ResidueTables* t) {
  const auto coordinate = [&](int k, int j) { return static_cast<int8_t>(columns[256 * j + k]); };
  // Two leaders share their residues and differ in one coordinate, which outranks the others.
  int other[kClasses], where[kClasses];
  for (int k = 0; k < kClasses; ++k) {
    other[k] = -1;
    for (int n = 0; n < kClasses; ++n) {
      int differ = 0, equal = 0, at = 0;
      for (int j = 0; j < kEncodeDim; ++j) {
        equal += Residue(coordinate(n, j)) == Residue(coordinate(k, j));
        if (coordinate(n, j) != coordinate(k, j)) ++differ, at = j;
      }
      if (equal != kEncodeDim || n == k) continue;
      if (differ != 1 || other[k] >= 0) return false;
      other[k] = n;
      where[k] = at;
    }
    if (other[k] < 0) return false;
  }
  bool known[kEncodeDim][kRadix] = {};
  for (int round = 0; round < kEncodeDim * kRadix; ++round) {
    for (int k = 0; k < kClasses; ++k) {
      const int at = where[k];
      uint8_t& top = t->rank[at][Residue(coordinate(k, at))];
      for (int j = 0; j < kEncodeDim; ++j) {
        const int r = Residue(coordinate(k, j));
        if (j == at) {
          if (!known[j][r]) t->usual[j][r] = static_cast<uint8_t>(coordinate(k, j));
          continue;
        }
        t->usual[j][r] = static_cast<uint8_t>(coordinate(k, j));
        known[j][r] = true;
        top = std::max<uint8_t>(top, static_cast<uint8_t>(t->rank[j][r] + 1));
      }
    }
  }
  for (int k = 0; k < kClasses; ++k) {
    const int at = where[k], r = Residue(coordinate(k, at));
    const int usual = static_cast<int8_t>(t->usual[at][r]);
    const int unusual = coordinate(k, at) == usual ? coordinate(other[k], at) : coordinate(k, at);
    t->turn[at][r] = static_cast<uint8_t>(usual - unusual);
  }
  // Every leader must come out of the tables: that the encoder relies on.
  for (int k = 0; k < kClasses; ++k) {
    int sum = 0, top = 0;
    for (int j = 0; j < kEncodeDim; ++j) {
      const int x = coordinate(k, j);
      sum += x - static_cast<int8_t>(t->usual[j][Residue(x)]);
      top = std::max<int>(top, t->rank[j][Residue(x)]);
    }
    for (int j = 0; j < kEncodeDim; ++j) {
      const int x = coordinate(k, j), r = Residue(x);
      const bool turned = sum % 8 != 0 && t->rank[j][r] == top;
      const int want =
          static_cast<int8_t>(t->usual[j][r]) - (turned ? static_cast<int8_t>(t->turn[j][r]) : 0);
      if (x != want) return false;
    }
  }
  return true;
}

}  // namespace

void Encoder::SetLevels(const cosetq_codec& codec, const int32_t* leaders) {
  uint32_t zero = kEncodeBias * 0x01010101u;
  for (int m = 0; m < codec.levels; ++m) {
    EncodeLevel& level = view_.level[m];
    level.mask = static_cast<uint32_t>(codec.radices[m] - 1);
    level.shift = codec.radices[m] / 2;  // of 2 and of 4
    level.zero = zero >>= level.shift;
    std::vector<uint32_t>& table = leaders_[m];
    uint8_t* columns = columns_[m];
    table.resize(size_t{1} << (kEncodeDim * level.shift));
    for (size_t k = 0; k < table.size(); ++k) {
      for (size_t j = 0; j < kEncodeDim; ++j, ++leaders) {
        table[k] += static_cast<uint32_t>(*leaders) << (8 * j);
        columns[256 * j + k] = static_cast<uint8_t>(*leaders);
      }
    }
    level.leaders = table.data();
    level.columns = columns;
    ResidueTables* residues = &residues_[m];
    level.residues =
        codec.radices[m] == kRadix && FillResidues(columns, residues) ? residues : nullptr;
  }
}

std::unique_ptr<Encoder> Encoder::Create(const cosetq_codec& codec, const int32_t* leaders) {
  if (leaders == nullptr || !Fits(codec, leaders)) return nullptr;
  std::unique_ptr<Encoder> encoder(new Encoder);
  EncoderView& view = encoder->view_;
  view.dim = codec.dim;
  view.levels = codec.levels;
  view.gain_count = codec.gain_count;
  if (codec.dim == 1) {
    view.level[0].mask = static_cast<uint32_t>(codec.radices[0] - 1);
    const auto ends = std::minmax_element(leaders, leaders + codec.radices[0]);
    view.run_low = static_cast<float>(*ends.first);
    view.run_high = static_cast<float>(*ends.second);
  } else {
    encoder->SetLevels(codec, leaders);
    view.hull = HullOf(codec, leaders);
  }
  std::copy_n(codec.gains, codec.gain_count, view.gains);
  std::copy_n(codec.centre, kEncodeDim, view.centre);
  view.reach_one = codec.reach_one;
  view.reach_two = codec.reach_two;
  view.ray_shrink = codec.ray_shrink;
  view.max_steps = codec.max_steps;
  view.max_refinements = codec.max_refinements;
  view.max_overloads = codec.max_overloads;
  return encoder;
}

}  // namespace cosetq
