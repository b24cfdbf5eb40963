// The encoder on the GPU gives the bits of the portable one: all codecs with kernels of their own and one without, runs of integers, steps from
// codes that all overload to codes that are all zero, rows taken in any order, rows that must be refused, and rows that are asked about again.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "cpu/encode.h"
#include "device.h"
#include "encoder_codec.h"

namespace cosetq::test {
namespace {

struct Coded {
  std::vector<double> sse;
  std::vector<uint16_t> indices;
  std::vector<uint8_t> gains;

  Coded(const TestCodec& codec, size_t count, int64_t groups)
      : sse(count, NAN),
        indices(count * codec.Slots() * static_cast<size_t>(groups), 0xffff),
        gains(count * static_cast<size_t>(groups), 0xff) {}

  bool operator==(const Coded& other) const {
    return sse == other.sse && indices == other.indices && gains == other.gains;
  }
};

void Compare(const TestCodec& codec, int64_t groups, const std::string& what) {
  std::mt19937 random(static_cast<unsigned>(groups));
  std::normal_distribution<float> normal;
  std::vector<float> rows(static_cast<size_t>(5 * groups * 8));
  for (float& x : rows) x = normal(random) * std::exp(normal(random));
  const std::vector<int32_t> at = {4, 0, 1, 2, 1, 3, 0};
  const std::vector<float> steps = {0.01f, 1e-6f, 0.2f, 0.05f, 3, 0.5f, 0.1f};
  const auto count = static_cast<int64_t>(steps.size());
  Coded want(codec, steps.size(), groups), got = want, errors = want;
  const auto encoder = Encoder::Create(codec.c, codec.leaders.data());
  kPortableEncode.encode(encoder->view(), {rows.data(), groups, at.data(), steps.data(), count, want.sse.data(),
                                           want.indices.data(), want.gains.data()});
  cosetq_cuda_encoder* device = cosetq_cuda_encoder_create(&codec.c, codec.leaders.data());
  if (!Check(device != nullptr, what + "no encoder")) return;
  Check(cosetq_cuda_encode(device, rows.data(), groups, at.data(), steps.data(), count, got.sse.data(), got.indices.data(),
                           got.gains.data()) == 0,
        what + "rows are refused");
  Check(got == want, what + "other bits than portable");
  Check(cosetq_cuda_encode(device, rows.data(), groups, at.data(), steps.data(), count, errors.sse.data(), nullptr, nullptr) ==
            0 && errors.sse == want.sse,
        what + "errors alone differ");
  rows[3] = NAN;
  const std::vector<float> bad = {0.1f, 0, 1e-39f, INFINITY, 0.1f};
  Coded some(codec, bad.size(), groups);
  Check(cosetq_cuda_encode(device, rows.data(), groups, nullptr, bad.data(), 5, some.sse.data(), some.indices.data(),
                           some.gains.data()) == 4 &&
            some.sse[0] == -1 && some.sse[3] == -1 && some.sse[4] >= 0,
        what + "refuses other rows");
  Check(cosetq_cuda_encode_device(device, rows.data() + 1, groups, steps.data(), 1, nullptr, nullptr, nullptr, nullptr, nullptr) == -1 &&
            std::string(cosetq_cuda_error()).find("multiple of 16") != std::string::npos,
        what + "rows that begin anywhere are not refused");
  cosetq_cuda_encoder_free(device);
}

// Rows of an id are copied once, whatever else is coded on other threads; those that a later call names first are copied then.
void Again(const TestCodec& codec, int64_t groups, const std::string& what) {
  cosetq_cuda_encoder* device = cosetq_cuda_encoder_create(&codec.c, codec.leaders.data());
  const auto host = Encoder::Create(codec.c, codec.leaders.data());
  if (!Check(device != nullptr, what + "no encoder")) return;
  constexpr int kRounds = 20, kRows = 5;
  const int threads_count = std::clamp<int>(static_cast<int>(std::thread::hardware_concurrency()), 1, 6);
  std::atomic<int> wrong{0}, copied{0};
  std::vector<std::thread> threads;
  for (int thread = 0; thread < threads_count; ++thread) {
    threads.emplace_back([&, thread] {
      std::mt19937 random(static_cast<unsigned>(thread));
      std::normal_distribution<float> normal;
      std::vector<float> rows(static_cast<size_t>(kRows * groups * 8));
      for (int round = 0; round < kRounds; ++round) {
        for (float& x : rows) x = normal(random);
        std::vector<float> given = rows;
        for (const std::vector<int32_t>& at : {std::vector<int32_t>{1, 0}, {0, 4, 2, 4}, {3}}) {
          const std::vector<float> steps(at.size(), 0.1f * static_cast<float>(1 + round));
          const auto count = static_cast<int64_t>(at.size());
          Coded want(codec, at.size(), groups), got = want;
          kPortableEncode.encode(host->view(), {rows.data(), groups, at.data(), steps.data(), count, want.sse.data(), want.indices.data(), want.gains.data()});
          cosetq_cuda_encode_again(device, 1 + thread * kRounds + round, given.data(), groups, at.data(), steps.data(), count, got.sse.data(),
                                   got.indices.data(), got.gains.data());
          if (at.size() == 1) {
            copied += !(got == want);  // of what has changed meanwhile
          } else {
            wrong += !(got == want);
          }
          if (at.size() == 4) std::fill(given.begin(), given.end(), 7.0f);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  Check(wrong == 0, what + std::to_string(wrong) + " calls on several threads give other bits");
  Check(copied < threads_count * kRounds / 2, what + "rows were copied again " + std::to_string(copied) + " times");
  cosetq_cuda_encoder_free(device);
}

}  // namespace

void TestCudaEncode() {
  const auto compare = [](const TestCodec& codec, const std::string& name) {
    for (const int64_t groups : {1, 37, 300})
      Compare(codec, groups, "encode: " + name + ", " + std::to_string(codec.c.gain_count) + " gains: ");
  };
  Again(TestCodec({4, 4}, {3, 4, 5, 6}), 37, "encode again: ");
  Again(TestCodec(16, {3, 4, 5, 6}), 300, "encode again, runs: ");
  const std::vector<int> radices[] = {{4}, {2, 4}, {4, 4}, {2, 2, 2, 2}, {4, 2, 4}};
  const std::vector<float> gains[] = {{1}, {3, 4, 5, 6}, {1, 2, 3, 5, 9, 127}};
  for (const auto& g : gains) {
    for (const auto& r : radices) compare(TestCodec(r, g), std::to_string(r.size()) + " levels");
    for (const int q : {2, 4, 8, 16}) compare(TestCodec(q, g), "runs of " + std::to_string(q));
  }
}

}  // namespace cosetq::test
