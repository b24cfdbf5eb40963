// Codecs as the encoders take them, made here from their definition.

#ifndef COSETQ_TEST_ENCODER_CODEC_H_
#define COSETQ_TEST_ENCODER_CODEC_H_

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "cosetq/cosetq.h"

namespace cosetq::test {

using Point = std::array<int, 4>;

// The point of D4 nearest to x.
inline Point NearestD4(const double* x) {
  Point v;
  int sum = 0, worst = 0;
  for (int j = 0; j < 4; ++j) {
    v[j] = static_cast<int>(std::lround(x[j]));
    sum += v[j];
    if (std::fabs(x[j] - v[j]) > std::fabs(x[worst] - v[worst])) worst = j;
  }
  if (sum % 2 != 0) v[worst] += x[worst] >= v[worst] ? 1 : -1;
  return v;
}

// A codec as Go describes it, but for ties between leaders.
struct TestCodec {
  cosetq_codec c{};
  std::vector<int32_t> leaders;
  std::vector<size_t> base;  // of each level in leaders

  TestCodec(const std::vector<int>& radices, const std::vector<float>& gains) {
    c.dim = 4;
    c.levels = static_cast<int32_t>(radices.size());
    c.gain_count = static_cast<int32_t>(gains.size());
    std::copy(gains.begin(), gains.end(), c.gains);
    c.ray_shrink = 0.875f;
    c.max_steps = 0x1p40f;
    c.max_refinements = 16;
    c.max_overloads = 2;
    int weight = 1;
    for (size_t m = 0; m < radices.size(); ++m) {
      AddLevel(radices[m], weight);
      c.radices[m] = radices[m];
      weight *= radices[m];
    }
  }

  // A run of integers.
  TestCodec(int radix, const std::vector<float>& gains) : TestCodec(std::vector<int>{}, gains) {
    c.dim = c.levels = 1;
    c.radices[0] = radix;
    base.push_back(0);
    for (int k = 0; k < radix; ++k) leaders.push_back(k <= radix / 2 ? k : k - radix);
    c.centre[0] = 0.5f;
    c.reach_one = c.reach_two = static_cast<float>(radix / 2);
  }

  size_t Slots() const { return static_cast<size_t>(c.levels * 8 / c.dim); }

  void AddLevel(int q, int weight) {
    const double tie[4] = {-5e-9, 2.6e-8, -2.3e-8, 1.7e-8};
    const int classes = q * q * q * q;
    int largest = 0, two = 0;
    base.push_back(leaders.size());
    for (int k = 0; k < classes; ++k) {
      const int b[4] = {k % q, k / q % q, k / q / q % q, k / q / q / q};
      const int p[4] = {b[1] - b[0], b[2] - b[0] - b[1], b[3] - b[2], -b[3]};
      double x[4];
      for (int j = 0; j < 4; ++j) x[j] = static_cast<double>(p[j]) / q + tie[j];
      const Point v = NearestD4(x);
      int size[4];
      for (int j = 0; j < 4; ++j) {
        const int leader = p[j] - q * v[j];
        leaders.push_back(leader);
        c.centre[j] += static_cast<float>(weight) * leader / classes;
        size[j] = std::abs(leader);
        largest = std::max(largest, size[j]);
      }
      std::sort(size, size + 4);
      two = std::max(two, size[2] + size[3]);
    }
    c.reach_one += static_cast<float>(weight * largest);
    c.reach_two += static_cast<float>(weight * two);
  }

  // Squared error of one coded group.
  double Error(const float* x, double step, const uint16_t* indices, int gain) const {
    double error = 0;
    const int blocks = 8 / c.dim;
    for (int b = 0; b < blocks; ++b) {
      for (int j = 0; j < c.dim; ++j) {
        double v = -c.centre[j];
        int weight = 1;
        for (int m = 0; m < c.levels; ++m) {
          v += weight * leaders[base[m] + static_cast<size_t>(c.dim * indices[blocks * m + b] + j)];
          weight *= c.radices[m];
        }
        const double e = x[c.dim * b + j] - step * c.gains[gain] * v;
        error += e * e;
      }
    }
    return error;
  }
};

}  // namespace cosetq::test

#endif  // COSETQ_TEST_ENCODER_CODEC_H_
