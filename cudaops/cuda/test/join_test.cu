// Two weights as one: the rows of both, and products with them.

#include <cmath>
#include <random>
#include <string>

#include "check.h"
#include "cpu/half.h"
#include "device.h"

namespace cosetq::test {
namespace {

std::vector<float> Decoded(const cosetq_cuda_weight* weight, int64_t count) {
  const DeviceBytes out(static_cast<size_t>(count) * sizeof(float));
  Must(cosetq_cuda_decode(weight, out.get(), COSETQ_FLOAT, nullptr) == 0, "cosetq_cuda_decode");
  return out.Read<float>();
}

std::vector<float> Product(const cosetq_cuda_weight* weight, const std::vector<uint16_t>& a, int64_t batch, int64_t rows) {
  const DeviceBytes in(a), out(static_cast<size_t>(batch * rows) * 2);
  cosetq_linear_call call = {};
  call.a = in.get();
  call.y = out.get();
  call.batch = batch;
  call.type = COSETQ_FLOAT16;
  call.workspace_bytes = cosetq_cuda_linear_workspace(weight, batch, call.type, call.accuracy);
  const DeviceBytes workspace(static_cast<size_t>(call.workspace_bytes));
  call.workspace = workspace.get();
  Must(cosetq_cuda_linear(weight, &call, nullptr) == 0, "cosetq_cuda_linear");
  std::vector<float> y;
  for (const uint16_t x : out.Read<uint16_t>()) y.push_back(HalfToFloat(x));
  return y;
}

cosetq_cuda_weight* Join(const DeviceSample& first, const DeviceSample& second) {
  cosetq_cuda_weight* joined = nullptr;
  Must(cosetq_cuda_weight_join(first.get(), second.get(), &joined) == 0, "cosetq_cuda_weight_join");
  return joined;
}

Options OptionsOf(const std::string& codec) {
  Options options;
  options.half = true;
  options.consecutive = codec[0] == 'z';
  if (options.consecutive) options.centre_step = 0.5f;
  return options;
}

void Rows(const std::string& codec, int64_t first_rows, int64_t second_rows, int rotation) {
  constexpr int64_t kCols = 576;
  const Options options = OptionsOf(codec);
  Options plain = options;
  plain.bias = false;
  Sample one(CodecNamed(codec), first_rows, kCols, options, 3), other(CodecNamed(codec), second_rows, kCols, plain, 4);
  other.SetCodebook(one);
  std::vector<uint8_t> signs, same;
  if (rotation > 0) {
    SetRotation(rotation, &signs, &one.spec());
    SetRotation(rotation, &same, &other.spec());
  }
  const DeviceSample first(one.spec()), second(other.spec());
  cosetq_cuda_weight* joined = Join(first, second);
  const std::string what = codec + " " + std::to_string(first_rows) + " and " + std::to_string(second_rows) + " rows: ";
  Check(joined != nullptr, what + "not joined");
  if (joined == nullptr) return;
  const int64_t rows = first_rows + second_rows;
  std::vector<float> want = Decoded(first.get(), first_rows * kCols);
  for (const float x : Decoded(second.get(), second_rows * kCols)) want.push_back(x);
  Check(Decoded(joined, rows * kCols) == want, what + "other weights");
  std::mt19937_64 random(5);
  std::normal_distribution<float> normal;
  for (const int64_t batch : {1, 7, 40, 130}) {
    std::vector<uint16_t> a;
    for (int64_t i = 0; i < batch * kCols; ++i) a.push_back(FloatToHalf(normal(random)));
    const std::vector<float> y = Product(joined, a, batch, rows), y1 = Product(first.get(), a, batch, first_rows), y2 = Product(second.get(), a, batch, second_rows);
    double wrong = 0, norm = 0;
    for (int64_t i = 0; i < batch; ++i) {
      for (int64_t n = 0; n < rows; ++n) {
        const double x = n < first_rows ? y1[static_cast<size_t>(i * first_rows + n)] : y2[static_cast<size_t>(i * second_rows + n - first_rows)];
        const double d = y[static_cast<size_t>(i * rows + n)] - x;
        wrong += d * d;
        norm += x * x;
      }
    }
    Check(std::sqrt(wrong) <= 1e-3 * std::sqrt(norm), what + "batch " + std::to_string(batch) + ": products differ by " + std::to_string(std::sqrt(wrong / norm)));
  }
  cosetq_cuda_weight_free(joined);
}

}  // namespace

void TestCudaJoin() {
  for (const char* codec : {"d4:4,4", "d4:2,4", "d4:4", "z1:16", "z1:4"}) {
    Rows(codec, 48, 100, 0);
    Rows(codec, 2048, 640, 0);
  }
  Rows("d4:4,4", 64, 64, 64);
  // What cannot be one weight.
  const Options options = OptionsOf("d4:4,4");
  Options gains = options;
  gains.gains = {2, 3, 4, 5};
  Sample sample(CodecNamed("d4:4,4"), 64, 192, options, 1), odd(CodecNamed("d4:4,4"), 50, 192, options, 1), wide(CodecNamed("d4:4,4"), 64, 200, options, 1),
      gain(CodecNamed("d4:4,4"), 64, 192, gains, 1), codec(CodecNamed("d4:4"), 64, 192, OptionsOf("d4:4"), 1), turned(CodecNamed("d4:4,4"), 64, 192, options, 1);
  std::vector<uint8_t> signs;
  SetRotation(64, &signs, &turned.spec());
  const DeviceSample first(sample.spec());
  for (Sample* other : {&wide, &gain, &codec, &turned}) {
    const DeviceSample second(other->spec());
    Check(Join(first, second) == nullptr, "weights of different kinds are not joined");
  }
  Check(Join(DeviceSample(odd.spec()), first) == nullptr, "a weight that ends within a tile is not joined");
}

}  // namespace cosetq::test
