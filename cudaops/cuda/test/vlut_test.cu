// Look-up tables against float64 on the decoded weights.

#include <cmath>
#include <random>
#include <string>

#include "check.h"
#include "device.h"

namespace cosetq::test {
namespace {

void OneSided(const Codec& codec, int64_t rows, int64_t cols, const Options& options) {
  Sample sample(codec, rows, cols, options, 4);
  const std::vector<double> weights = sample.Decode();
  const DeviceSample device(sample.spec());
  std::mt19937 random(8);
  std::normal_distribution<float> normal;
  std::vector<float> query(static_cast<size_t>(cols));
  for (float& x : query) x = normal(random);
  const DeviceBytes in(query), out(static_cast<size_t>(rows) * sizeof(float));
  const DeviceBytes workspace(static_cast<size_t>(cosetq_cuda_vlut_workspace(device.get())));
  Must(cosetq_cuda_vlut(device.get(), static_cast<const float*>(in.get()), static_cast<float*>(out.get()), workspace.get(),
                        nullptr) == 0,
       "cosetq_cuda_vlut");
  const auto got = out.Read<float>();
  double squares = 0, norm = 0;
  for (size_t n = 0; n < got.size(); ++n) {
    double sum = 0, w2 = 0, q2 = 0;
    for (size_t k = 0; k < query.size(); ++k) {
      const double w = weights[n * query.size() + k], q = static_cast<double>(query[k]);
      sum += w * q;
      w2 += w * w;
      q2 += q * q;
    }
    squares += (static_cast<double>(got[n]) - sum) * (static_cast<double>(got[n]) - sum);
    norm += w2 * q2;
  }
  const double error = std::sqrt(squares / norm);
  Check(error < 1e-6, std::string("one-sided ") + codec.name + ": error " + std::to_string(error * 1e6) + "e-6");
}

void TwoSided(const Codec& codec, int64_t rows, int64_t others, int64_t cols, const Options& options) {
  // One codebook for both, as the leaders of one codec are.
  Sample a(codec, rows, cols, options, 4), b(codec, others, cols, options, 5);
  b.SetCodebook(a);
  const std::vector<double> left = a.Decode(), right = b.Decode();
  const DeviceSample device_a(a.spec()), device_b(b.spec());
  const DeviceBytes out(static_cast<size_t>(rows * others) * sizeof(float));
  Must(cosetq_cuda_vlut_pairs(device_a.get(), device_b.get(), static_cast<float*>(out.get()), nullptr) == 0,
       "cosetq_cuda_vlut_pairs");
  const auto got = out.Read<float>();
  double squares = 0, norm = 0;
  const auto width = static_cast<size_t>(cols);
  // Both rows have numbers in the padding of the last group, which the tables count; the shapes here have none.
  for (size_t n = 0; n < static_cast<size_t>(rows); ++n) {
    for (size_t m = 0; m < static_cast<size_t>(others); ++m) {
      double sum = 0, a2 = 0, b2 = 0;
      for (size_t k = 0; k < width; ++k) {
        const double x = left[n * width + k], y = right[m * width + k];
        sum += x * y;
        a2 += x * x;
        b2 += y * y;
      }
      const double e = static_cast<double>(got[n * static_cast<size_t>(others) + m]) - sum;
      squares += e * e;
      norm += a2 * b2;
    }
  }
  const double error = std::sqrt(squares / norm);
  Check(error < 1e-6, std::string("two-sided ") + codec.name + ": error " + std::to_string(error * 1e6) + "e-6");
}

}  // namespace

void TestCudaTables() {
  Options options;
  options.gains = {3, 4, 5, 6};
  options.bias = false;
  for (const char* name : {"d4:4,4", "d4:2,4", "d4:4"}) {
    const Codec& codec = CodecNamed(name);
    OneSided(codec, 200, 192, options);
    OneSided(codec, 65, 100, options);
    OneSided(codec, 1000, 2100, options);
    TwoSided(codec, 200, 7, 192, options);
    TwoSided(codec, 50, 33, 600, options);
  }
  for (const char* name : {"e8:2,2", "z1:16"}) {
    options.consecutive = name[0] == 'z';
    options.centre_step = 0.5f;
    Sample sample(CodecNamed(name), 64, 64, options, 1);
    const DeviceSample device(sample.spec());
    Check(cosetq_cuda_vlut_workspace(device.get()) == 0 && cosetq_cuda_vlut(device.get(), nullptr, nullptr, nullptr, nullptr) == -1 &&
              cosetq_cuda_vlut_pairs(device.get(), device.get(), nullptr, nullptr) == -1,
          std::string(name) + " has no tables and is refused");
  }
  // Products of codewords that the two-sided table cannot hold.
  options.gains = {1};
  Sample sample(CodecNamed("d4:4"), 64, 64, options, 1);
  std::vector<int8_t> codebook(256 * 4, 100);
  sample.spec().codebook.data = codebook.data();
  const DeviceSample device(sample.spec());
  Check(cosetq_cuda_vlut_pairs(device.get(), device.get(), nullptr, nullptr) == -1 && std::string(cosetq_cuda_error()).find("up to 100") != std::string::npos,
        "codewords too large for two-sided tables are refused");
}

}  // namespace cosetq::test
