// Recognises the codecs with kernels of their own from their data alone: the codec's name is never
// trusted.

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "weight.h"

namespace cosetq {
namespace {

bool Matches(const Slot& slot, int element, int divisor, int modulus) {
  return slot.element == element && slot.divisor == divisor && slot.modulus == modulus;
}

bool IsNibbles(const WeightView& v) {
  bool matches = v.dim == 1 && v.code_bytes == 1 && v.levels == 1 && v.elements == 4;
  for (int i = 0; i < kGroup && matches; ++i) {
    matches =
        Matches(v.slots[i], i / 2, i % 2 == 0 ? 1 : 16, 16) && v.slots[i].base == v.slots[0].base;
  }
  return matches;
}

Form SlotForm(const WeightView& v) {
  if (IsNibbles(v)) return Form::kNibbles;
  if (v.dim != 4 || v.code_bytes != 1 || v.levels > 2) return Form::kGeneral;
  for (int m = 0; m < v.levels; ++m) {
    if (v.slots[2 * m].base != v.slots[2 * m + 1].base) return Form::kGeneral;
  }
  const auto bytes = [&](int slot, int element) { return Matches(v.slots[slot], element, 1, 256); };
  if (v.levels == 1) {
    return v.elements == 2 && bytes(0, 0) && bytes(1, 1) ? Form::kOneByte : Form::kGeneral;
  }
  if (v.elements == 4 && bytes(0, 0) && bytes(1, 1) && bytes(2, 2) && bytes(3, 3))
    return Form::kTwoByte;
  if (v.elements == 3 && Matches(v.slots[0], 0, 1, 16) && Matches(v.slots[1], 0, 16, 16) &&
      bytes(2, 1) && bytes(3, 2)) {
    return Form::kNibbleByte;
  }
  return Form::kGeneral;
}

int Coordinate(const WeightView& v, int level, int digit, int j) {
  const int32_t word = v.words[v.slots[2 * level].base + digit];
  if (v.dim == 1) j = 0;
  return static_cast<int8_t>(static_cast<uint32_t>(word) >> (8 * j));
}

int Digits(Form form, int level) {
  return form == Form::kNibbles || (form == Form::kNibbleByte && level == 0) ? 16 : 256;
}

// Splits the centre between the levels. Any split gives the same sums; each coarse level takes the
// mean of its own table, and the finest takes what is left. Levels with one table in common take
// equal shares, so that one centred table serves both.
void SplitCentre(const WeightView& v, Form form, FormTables* t) {
  const double fine = v.level_weights[0];
  t->shared = form == Form::kTwoByte && v.slots[0].base == v.slots[2].base;
  double longest = 0;
  for (int level = v.levels - 1; level >= 0; --level) {
    double norms[256] = {};
    for (int j = 0; j < 4; ++j) {
      double share;
      if (t->shared) {
        share = v.centre[j] / (fine + v.level_weights[1]);
      } else if (level == 1) {
        double sum = 0;
        for (int c = 0; c < 256; ++c) sum += Coordinate(v, level, c, j);
        share = sum / 256;
      } else {
        double rest = v.centre[j];
        if (v.levels == 2)
          rest -= (Coordinate(v, 1, 0, j) - t->centred[1][j][0]) * v.level_weights[1];
        share = rest / fine;
      }
      for (int c = 0; c < Digits(form, level); ++c) {
        const double x = Coordinate(v, level, c, j) - share;
        t->centred[level][j][c] = static_cast<float>(x);
        norms[c] += x * x;
        t->largest[j] = std::fmax(t->largest[j], std::fabs(t->centred[level][j][c]));
      }
    }
    for (double norm : norms) longest = std::fmax(longest, norm);
  }
  t->longest = static_cast<float>(std::sqrt(longest));
}

// The table of 256 entries for the kernels that build look-up tables in integers.
void SetIntegers(const WeightView& v, Form form, FormTables* t) {
  const int level = form == Form::kNibbleByte ? 1 : 0;
  for (int j = 0; j < 4; ++j) {
    for (int place = 0; place < 256; ++place) {
      const int i = place / 16 % 4, l = place / 4 % 4, k = place % 4;
      const int digit = place / 64 * 64 + 16 * l + 4 * i + k;
      t->integers[j / 2][place][j % 2] = static_cast<int16_t>(Coordinate(v, level, digit, j));
    }
    t->shares[j] = static_cast<float>(Coordinate(v, level, 0, j)) - t->centred[level][j][0];
  }
}

// Fills t->panel from digits and gains with weights in units of level_weights[0] / 2^fold.
bool SetPanel(const WeightView& v, Form form, int fold, FormTables* t) {
  PanelTables& p = t->panel;
  p = {};
  const double unit = std::ldexp(static_cast<double>(v.level_weights[0]), -fold);
  int most = 0, sum = 0;  // of what is multiplied with a gain, and without its sign
  double rests = 0, shift[4];
  for (int j = 0; j < 4; ++j) {
    shift[j] = v.centre[j] / unit;
    int high = 0;
    for (int level = 0; level < v.levels; ++level) {
      const int place = level == 0 ? 0 : t->ratio_log2, count = Digits(form, level);
      const int8_t* digits = t->digits[level][j];
      const int least = *std::min_element(digits, digits + count);
      const int range = (*std::max_element(digits, digits + count) - least) >> place;
      p.shift[level] = static_cast<uint8_t>(place + fold);
      if (form != Form::kNibbles && (range > kPanelField || p.shift[level] + 2 * kPanelPlace > 8))
        return false;
      for (int d = 0; d < count; ++d) {
        const int x = digits[d] - least;
        p.pairs[level][j / 2][d] |= static_cast<uint8_t>(x << (fold + kPanelPlace * (j % 2)));
        if (form == Form::kNibbles) p.nibbles[d] = static_cast<uint8_t>(x << fold);
      }
      shift[j] -= least * (1 << fold);
      high += range << p.shift[level];
    }
    // Two coordinates share a byte, and weights take eight bits with their sign.
    if (form != Form::kNibbles && high >> (8 - kPanelPlace) != 0) return false;
    if (!(shift[j] >= 0 && shift[j] <= 255)) return false;
    const int bias = static_cast<int>(std::lround(shift[j]));
    p.bias[j] = static_cast<uint8_t>(bias);
    rests += 2 * std::fabs(shift[j] - bias);  // of both blocks
    most = std::max({most, 2 * bias, 2 * (high - bias), high});
    sum += 2 * bias;
  }
  const int kappa = std::max(1, static_cast<int>(std::ceil(rests)));
  const bool one_gain = v.gains == nullptr;
  const int gain = one_gain ? 1 : *std::max_element(t->gain_bytes, t->gain_bytes + 64);
  if (form != Form::kNibbles && gain > kPanelGain) return false;
  if (gain * std::max(most, 2 * kappa) > 254) return false;
  p.kappa = static_cast<uint8_t>(kappa);
  // No larger than the sum of the shifts needs, and a fine part fits a byte.
  p.coarse = static_cast<uint8_t>(std::clamp(sum, 1, std::min(255 / std::max(gain, 1), 128)));
  for (int j = 0; j < 4; ++j) {
    p.rest[j] = p.rest[4 + j] = static_cast<float>((p.bias[j] - shift[j]) / kappa);
    p.has_rests = p.has_rests || p.rest[j] != 0;
    p.whole[j] = p.whole[4 + j] = static_cast<float>(-shift[j]);
    for (int g = 0; g <= kPanelGain; ++g)
      p.shifts[j][g] = static_cast<uint8_t>(g * p.bias[j] - kPanelCentre);
  }
  for (int i = 0; form == Form::kNibbles && i < 256; ++i) {
    const int g = one_gain ? 1 : t->gain_bytes[i / 16], x = p.nibbles[i % 16];
    p.weights[0][i] = static_cast<uint8_t>(g * x);
    p.weights[1][i] = static_cast<uint8_t>(g * (x - p.bias[0]) + kPanelCentre);
  }
  p.unit = static_cast<float>(unit * (one_gain ? v.gain_values[0] : 1));
  return true;
}

// Fills t->words from digits and gains; false when the numbers do not fit.
bool SetWords(const WeightView& v, Form form, FormTables* t) {
  WordTables& p = t->words;
  const bool one_gain = v.gains == nullptr;
  const int gain = one_gain ? 1 : *std::max_element(t->gain_bytes, t->gain_bytes + 64);
  double largest = 0;  // |v' - shift|
  for (int j = 0; j < 4; ++j) {
    int low = 0, high = 0;
    for (int level = 0; level < v.levels; ++level) {
      const int8_t* digits = t->digits[level][j];
      const int least = *std::min_element(digits, digits + Digits(form, level));
      low += least;
      high += *std::max_element(digits, digits + Digits(form, level));
      for (int c = 0; c < Digits(form, level); ++c) {
        const uint32_t byte = static_cast<uint8_t>(digits[c] - least);
        p.codewords[level][c] |= byte << (8 * j);
      }
    }
    const double centre = v.centre[j] / static_cast<double>(v.level_weights[0]);
    if (high - low > 129 || !(std::fabs(centre) < 64)) return false;
    p.shift[j] = static_cast<float>(centre - low);
    largest = std::fmax(largest, std::fmax(high - centre, centre - low));
  }
  if (largest > 64) return false;
  for (p.fold = 3; p.fold >= 0; --p.fold) {
    double rests = 0;
    for (int j = 0; j < 4; ++j) {
      const double c = std::ldexp(static_cast<double>(p.shift[j]), p.fold);
      p.c[j] = static_cast<int16_t>(std::lround(c));
      rests += 2 * std::fabs(c - p.c[j]);  // of both blocks
    }
    p.kappa = std::max(1, static_cast<int>(std::ceil(rests)));
    // 64 columns and 8 rests times activations of 15 bits must fit 32.
    if (gain * (64 * (std::ldexp(largest, p.fold) + 1) + 8 * p.kappa) < 65700) break;
  }
  if (p.fold < 0) return false;
  for (int j = 0; j < 4; ++j) {
    const double c = std::ldexp(static_cast<double>(p.shift[j]), p.fold);
    p.rest[j] = p.rest[4 + j] = static_cast<float>((p.c[j] - c) / p.kappa);
  }
  p.unit = v.level_weights[0] * (one_gain ? v.gain_values[0] : 1);
  return true;
}

}  // namespace

Form RecogniseForm(const WeightView& v, FormTables* t) {
  const Form form = SlotForm(v);
  if (form == Form::kGeneral || !(v.level_weights[0] > 0)) return Form::kGeneral;
  // The blocks of a group are one lattice and must have one centre.
  for (int j = v.dim; j < kGroup; ++j) {
    if (v.centre[j] != v.centre[j - v.dim]) return Form::kGeneral;
  }
  int ratio = 1;
  std::memset(t, 0, sizeof *t);
  if (v.levels == 2) {
    for (t->ratio_log2 = 1; t->ratio_log2 <= 4; ++t->ratio_log2) {
      ratio = 1 << t->ratio_log2;
      if (v.level_weights[1] == v.level_weights[0] * static_cast<float>(ratio)) break;
    }
    if (t->ratio_log2 > 4) return Form::kGeneral;
  }
  int largest[2] = {0, 0};
  for (int level = 0; level < v.levels; ++level) {
    for (int j = 0; j < 4; ++j) {
      for (int c = 0; c < Digits(form, level); ++c) {
        const int x = Coordinate(v, level, c, j) * (level == 0 ? 1 : ratio);
        largest[level] = std::max(largest[level], std::abs(x));
        t->digits[level][j][c] = static_cast<int8_t>(x);
        t->weighted[level][c][j] = v.level_weights[0] * static_cast<float>(x);
      }
    }
  }
  if (largest[0] + largest[1] > 127) return Form::kGeneral;
  SplitCentre(v, form, t);
  if (form != Form::kNibbles) SetIntegers(v, form, t);

  const int gains = v.gains == nullptr ? 1 : 1 << v.gain_bits;
  t->integer_gains = true;
  for (int i = 0; i < 64; ++i) {
    const float gain = v.gain_values[i % gains];
    const bool fits = IsIntegerGain(gain);
    t->integer_gains = t->integer_gains && fits;
    t->gain_bytes[i] = fits ? static_cast<uint8_t>(gain) : 0;
  }
  // The finer the unit, the less is left to the rests and their rounding.
  for (int fold = 3; fold >= 0 && !t->panel.usable; --fold) {
    t->panel.usable = (v.gains == nullptr || t->integer_gains) && SetPanel(v, form, fold, t);
  }
  t->words.usable = (v.gains == nullptr || t->integer_gains) && SetWords(v, form, t);
  return form;
}

}  // namespace cosetq
