// The encoder on every instruction set: the same bits, and the errors that its codes have. That the
// bits are those of the package lattice is tested from Go.

#include "cpu/encode.h"

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "cpu/dispatch.h"
#include "encoder_codec.h"

namespace cosetq::test {
namespace {

struct Coded {
  std::vector<double> sse;
  std::vector<uint16_t> indices;
  std::vector<uint8_t> gains;
  int64_t refused;
};

// Codes in memory that is just large enough.
Coded Run(const Encoder& encoder, size_t slots, const std::vector<float>& rows, int64_t groups,
          const std::vector<int32_t>& at, const std::vector<float>& steps, bool keep) {
  Coded r;
  const size_t count = steps.size(), all = count * static_cast<size_t>(groups);
  r.sse.resize(count);
  r.indices.resize(keep ? all * slots : 0);
  r.gains.resize(keep ? all : 0);
  r.refused = encoder.Encode({rows.data(), groups, at.empty() ? nullptr : at.data(), steps.data(),
                              static_cast<int64_t>(count), r.sse.data(),
                              keep ? r.indices.data() : nullptr, keep ? r.gains.data() : nullptr});
  return r;
}

bool Same(const Coded& a, const Coded& b) {
  return a.refused == b.refused && a.indices == b.indices && a.gains == b.gains && a.sse == b.sse;
}

void TestRows(const TestCodec& codec, const Encoder& encoder, int64_t groups,
              const std::string& what) {
  std::mt19937 random(static_cast<unsigned>(groups));
  std::normal_distribution<float> normal;
  std::vector<float> rows(static_cast<size_t>(5 * groups * 8));
  for (float& x : rows) x = normal(random) * std::exp(normal(random));
  const std::vector<int32_t> at = {4, 0, 1, 2, 1, 3, 0};
  const float inf = INFINITY;
  const std::vector<float> steps = {0.01f, 1e-6f, 0.2f, 0, 3, 1e-39f, inf};
  std::vector<float> bad = rows;
  bad[static_cast<size_t>(groups * 8 + 3)] = NAN;
  bad[static_cast<size_t>(3 * groups * 8 - 1)] = -inf;
  Coded first, first_bad;
  int count = 0;
  const char* const* names = AvailableIsas(&count);
  for (int i = 0; i < count; ++i) {
    std::string error;
    SelectIsa(names[i], &error);
    const Coded all = Run(encoder, codec.Slots(), rows, groups, at, steps, true);
    const Coded errors = Run(encoder, codec.Slots(), rows, groups, at, steps, false);
    const Coded some =
        Run(encoder, codec.Slots(), bad, groups, {}, {0.1f, 0.1f, 0.1f, 0.1f, 0.1f}, true);
    if (i == 0) {
      first = all;
      first_bad = some;
    }
    const std::string where = what + " " + names[i] + ": ";
    Check(Same(all, first) && Same(some, first_bad), where + "other bits than portable");
    Check(errors.sse == all.sse, where + "errors alone differ");
    Check(all.refused == 3 && all.sse[3] == -1 && all.sse[5] == -1 && all.sse[6] == -1,
          where + "steps refused");
    Check(some.refused == 2 && some.sse[1] == -1 && some.sse[2] == -1, where + "rows refused");
    for (size_t item : {0, 1, 2, 4}) {
      double sum = 0;
      for (int64_t g = 0; g < groups; ++g) {
        const size_t group = item * static_cast<size_t>(groups) + static_cast<size_t>(g);
        sum += codec.Error(&rows[static_cast<size_t>((at[item] * groups + g) * 8)], steps[item],
                           &all.indices[group * codec.Slots()],
                           all.gains[group]);
      }
      Check(std::fabs(sum - all.sse[item]) <= 1e-4 * sum, where + "error is not that of the codes");
    }
  }
}

struct InMetric {
  std::vector<uint16_t> indices;
  std::vector<uint8_t> gains;
  std::vector<float> weights, losses;
};

bool Same(const InMetric& a, const InMetric& b) {
  return a.indices == b.indices && a.gains == b.gains && a.weights == b.weights &&
         a.losses == b.losses;
}

// The same bits everywhere; the weights are those of the codes, and the loss is that of the
// weights.
void TestMetric(const TestCodec& codec, const Encoder& encoder, size_t rows,
                const std::string& what) {
  std::mt19937 random(static_cast<unsigned>(rows));
  std::normal_distribution<float> normal;
  std::vector<float> x(rows * 8), steps(rows), metric(128);
  for (float& v : x) v = normal(random) * std::exp(normal(random));
  for (float& s : steps) s = std::exp(2 * normal(random) - 2);
  steps[rows / 2] = 0;
  for (size_t i = 0; i < 8; ++i) {
    for (size_t j = 0; j < i; ++j) metric[i * 8 + j] = 0.3f * normal(random);
    metric[i * 8 + i] = 1 + static_cast<float>(i) / 8;
    for (size_t j = 0; i >= 4 && j < 4; ++j) metric[64 + i * 8 + j] = 0.3f * normal(random);
  }
  InMetric first;
  int count = 0;
  const char* const* names = AvailableIsas(&count);
  for (int n = 0; n < count; ++n) {
    std::string error;
    SelectIsa(names[n], &error);
    const size_t slots = codec.Slots();
    InMetric r{std::vector<uint16_t>(rows * slots), std::vector<uint8_t>(rows),
               std::vector<float>(rows * 8), std::vector<float>(rows)};
    encoder.EncodeInMetric({x.data(), steps.data(), metric.data(), static_cast<int64_t>(rows),
                            r.indices.data(), r.gains.data(), r.weights.data(), r.losses.data()});
    const std::string where = what + " " + names[n] + ": ";
    if (n == 0) first = r;
    Check(Same(r, first), where + "in a metric: other bits than portable");
    for (size_t i = 0; i < rows; ++i) {
      Check(codec.Error(&r.weights[i * 8], steps[i], &r.indices[i * slots], r.gains[i]) <
                1e-8 * std::max(1.0, static_cast<double>(steps[i] * steps[i])),
            where + "in a metric: the weights are not those of the codes");
      double loss = 0;
      for (size_t j = 0; j < 8; ++j) {
        double z = 0;
        for (size_t k = j; k < 8; ++k)
          z += static_cast<double>(x[i * 8 + k] - r.weights[i * 8 + k]) *
               static_cast<double>(metric[k * 8 + j]);
        loss += z * z;
      }
      Check(std::fabs(loss - static_cast<double>(r.losses[i])) <= 1e-3 * loss + 1e-9,
            where + "in a metric: the loss is not that of the weights");
    }
  }
}

// Moves one leader to another point of its class that is as long.
void BreakTie(std::vector<int32_t>* leaders) {
  for (size_t k = 0; k + 4 <= leaders->size(); k += 4) {
    int32_t* x = leaders->data() + k;
    if (x[0] * x[0] != 4 || x[1] != 0 || x[2] != 0 || x[3] * x[3] != 4) continue;
    x[0] = -x[0];
    x[3] = -x[3];
    return;
  }
}

}  // namespace

void TestEncode() {
  const std::vector<int> radices[] = {{4}, {2, 4}, {4, 4}, {2, 2, 2, 2}, {4, 2, 4}};
  const std::vector<float> gains[] = {{1}, {3, 4, 5, 6}, {1, 2, 3, 5, 9, 127}};
  for (const auto& r : radices) {
    for (const auto& g : gains) {
      for (const bool tied : {true, false}) {
        TestCodec codec(r, g);
        if (!tied) BreakTie(&codec.leaders);
        const auto encoder = Encoder::Create(codec.c, codec.leaders.data());
        const std::string what = "encode: " + std::to_string(r.size()) + " levels, " +
                                 std::to_string(g.size()) + " gains" +
                                 (tied ? "" : ", one tie broken otherwise");
        if (!Check(encoder != nullptr, what + ": not supported")) continue;
        bool by_residues = true;
        for (size_t m = 0; m < r.size(); ++m)
          by_residues = by_residues && (r[m] != 4 || encoder->view().level[m].residues != nullptr);
        Check(by_residues == (tied || r == radices[3]), what + ": other tables than expected");
        for (int64_t groups : {1, 3, 16, 37, 300}) TestRows(codec, *encoder, groups, what);
        for (size_t rows : {1, 5, 64, 131}) TestMetric(codec, *encoder, rows, what);
      }
    }
  }
  for (const int radix : {2, 4, 8, 16}) {
    for (const auto& g : gains) {
      TestCodec codec(radix, g);
      const std::string what =
          "encode: " + std::to_string(radix) + " integers, " + std::to_string(g.size()) + " gains";
      const auto encoder = Encoder::Create(codec.c, codec.leaders.data());
      if (!Check(encoder != nullptr, what + ": not supported")) continue;
      for (int64_t groups : {1, 3, 16, 37, 300}) TestRows(codec, *encoder, groups, what);
      for (size_t rows : {1, 5, 64, 131}) TestMetric(codec, *encoder, rows, what);
    }
  }
  TestCodec run(16, {1});
  run.leaders[8] = -8;  // the other of two as long
  Check(Encoder::Create(run.c, run.leaders.data()) != nullptr, "encode: another run not supported");
  run.leaders[3] = 19;
  Check(Encoder::Create(run.c, run.leaders.data()) == nullptr, "encode: takes integers that are no run");
  TestCodec codec({4, 4}, {1});
  const auto refused = [&](const std::string& what) {
    Check(Encoder::Create(codec.c, codec.leaders.data()) == nullptr, "encode: takes " + what);
    codec = TestCodec({4, 4}, {1});
  };
  codec.c.dim = 2;
  refused("another lattice");
  codec.c.levels = 5;
  refused("five levels");
  codec.c.radices[1] = 8;
  refused("radix 8");
  codec.c.gain_count = 17;
  refused("17 gains");
  codec.c.reach_one = 70;
  refused("points that leave 8 bits");
  codec.c.ray_shrink = 1;
  refused("a ray without end");
  Check(Encoder::Create(codec.c, nullptr) == nullptr, "encode: takes no leaders");
  std::string error;
  SelectIsa("", &error);
}

}  // namespace cosetq::test
