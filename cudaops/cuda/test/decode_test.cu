// Weights as numbers, and single rows of them, against their decoding on the host.

#include <cmath>
#include <string>

#include "check.h"
#include "cpu/half.h"
#include "device.h"

namespace cosetq::test {
namespace {

// All of a weight, and single rows of it.
void Decode(const Codec& codec, int64_t rows, int64_t cols, const Options& options) {
  const bool half = options.half;
  Sample sample(codec, rows, cols, options, 3);
  const std::vector<double> want = sample.Decode();
  const DeviceSample device(sample.spec());
  const DeviceBytes out(want.size() * (half ? 2 : 4));
  Must(cosetq_cuda_decode(device.get(), out.get(), half ? COSETQ_FLOAT16 : COSETQ_FLOAT, nullptr) == 0,
       "cosetq_cuda_decode");
  double worst = 0;
  const auto compare = [&](size_t i, double got) {
    const double e = std::fabs(got - want[i]) / (std::fabs(want[i]) + 1e-4);
    worst = e > worst || std::isnan(e) ? e : worst;
  };
  if (half) {
    const auto got = out.Read<uint16_t>();
    for (size_t i = 0; i < want.size(); ++i) compare(i, HalfToFloat(got[i]));
  } else {
    const auto got = out.Read<float>();
    for (size_t i = 0; i < want.size(); ++i) compare(i, got[i]);
  }
  Check(worst < (half ? 1e-3 : 1e-5), std::string("decode ") + codec.name + " " + std::to_string(rows) + "x" +
                                          std::to_string(cols) + ": error " + std::to_string(worst));
  // Single rows, from both ends, and one that is not there.
  const std::vector<int64_t> rows_wanted = {0, rows - 1, -1, -rows, rows / 2, rows};
  const DeviceBytes indices(rows_wanted), taken(rows_wanted.size() * static_cast<size_t>(cols) * (half ? 2 : 4));
  const int64_t before = cosetq_cuda_calls("gather");
  Must(cosetq_cuda_gather(device.get(), indices.get(), 8, static_cast<int64_t>(rows_wanted.size()), taken.get(),
                          half ? COSETQ_FLOAT16 : COSETQ_FLOAT, nullptr) == 0,
       "cosetq_cuda_gather");
  Check(cosetq_cuda_calls("gather") == before + 1, "a gather is counted");
  const auto got16 = half ? taken.Read<uint16_t>() : std::vector<uint16_t>();
  const auto got32 = half ? std::vector<float>() : taken.Read<float>();
  worst = 0;
  for (size_t i = 0; i < rows_wanted.size() * static_cast<size_t>(cols); ++i) {
    const auto k = i % static_cast<size_t>(cols);
    int64_t row = rows_wanted[i / static_cast<size_t>(cols)];
    if (row < 0) row += rows;
    const double w = row < rows ? want[static_cast<size_t>(row * cols) + k] : 0;
    const double e = std::fabs((half ? HalfToFloat(got16[i]) : got32[i]) - w) / (std::fabs(w) + 1e-4);
    worst = e > worst || std::isnan(e) ? e : worst;
  }
  Check(worst < (half ? 1e-3 : 1e-5), std::string("gather ") + codec.name + " " + std::to_string(rows) + "x" +
                                          std::to_string(cols) + ": error " + std::to_string(worst));
}

}  // namespace

void TestCudaDecode() {
  const auto run = [](const Codec& codec, const Options& options) {
    for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{200, 192}, {65, 100}, {1, 7}, {50, 2100}}) Decode(codec, rows, cols, options);
  };
  for (const bool half : {false, true}) {
    Options options;
    options.half = half;
    options.gains = {3, 4, 5, 6};
    for (const Codec& codec : Codecs()) run(codec, options);
    options.consecutive = true;
    options.centre = 2;
    options.centre_step = 0.5f;
    run(CodecNamed("z1:16"), options);
    run(CodecNamed("z1:4"), options);
  }
}

}  // namespace cosetq::test
