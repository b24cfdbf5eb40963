#include "cpu/dispatch.h"

#include <cmath>
#include <cstdlib>
#include <cstring>

#include "check.h"
#include "cpu/counters.h"
#include "cpu/half.h"

namespace cosetq::test {

void TestHalf() {
  int wrong = 0;
  for (int h = 0; h < 0x10000; ++h) {
    const auto half = static_cast<uint16_t>(h);
    const int exponent = h >> 10 & 31, mantissa = h & 1023;
    const double magnitude = exponent == 0    ? std::ldexp(mantissa, -24)
                             : exponent == 31 ? INFINITY
                                              : std::ldexp(1024 + mantissa, exponent - 25);
    const float value = HalfToFloat(half);
    if (exponent == 31 && mantissa != 0) {
      wrong += !std::isnan(value) || !std::isnan(HalfToFloat(FloatToHalf(value)));
      continue;
    }
    wrong += value != static_cast<float>(h & 0x8000 ? -magnitude : magnitude) ||
             FloatToHalf(value) != half;
    if (exponent == 31) continue;
    // Halfway to the next number rounds to the even one of the two, anything past it up.
    const float next = HalfToFloat(static_cast<uint16_t>(half + 1));
    if (std::isinf(next)) continue;
    const float middle = (value + next) / 2;
    wrong += FloatToHalf(middle) != (half & 1 ? half + 1 : half);
    wrong += FloatToHalf(std::nextafter(middle, next)) != half + 1;
  }
  Check(wrong == 0, "half: " + std::to_string(wrong) + " conversions differ");
  Check(FloatToHalf(65519.9f) == 0x7bff && FloatToHalf(65520.0f) == 0x7c00,
        "half: overflow to infinity");

  int count = 0;
  const char* const* names = AvailableIsas(&count);
  for (int i = 0; i < count; ++i) {
    std::string error;
    SelectIsa(names[i], &error);
    const Kernels& kernels = ActiveKernels();
    uint16_t in[77], out[77];
    float values[77];
    int differ = 0;
    for (int start = 0; start < 0x7c00; start += 77) {
      for (int j = 0; j < 77; ++j)
        in[j] = static_cast<uint16_t>((start + j) % 0x7c00 | (j & 1) << 15);
      kernels.to_float(in, values, 77);
      for (int j = 0; j < 77; ++j) differ += values[j] != HalfToFloat(in[j]);
      for (float& v : values) v *= 1.0003f;
      kernels.to_half(values, out, 77);
      for (int j = 0; j < 77; ++j) differ += out[j] != FloatToHalf(values[j]);
    }
    Check(differ == 0, std::string("half: ") + names[i] + " differs from the plain conversion");
  }
}

void TestDispatch() {
  std::string error;
  Check(!SelectIsa("mmx", &error) && error.find("portable") != std::string::npos,
        "dispatch: unknown name: " + error);
  setenv(schema::kEnvIsa, "nonsense", 1);
  Check(!SelectIsaFromEnvironment(&error) && error.find(schema::kEnvIsa) == 0,
        "dispatch: bad environment: " + error);
  setenv(schema::kEnvIsa, "portable", 1);
  Check(SelectIsaFromEnvironment(&error) && std::strcmp(ActiveKernels().name, "portable") == 0,
        "dispatch: environment chooses");
  unsetenv(schema::kEnvIsa);
  Check(CallCount("avx512.lookup") >= 0 && CallCount("portable.general") >= 0,
        "counters: known names");
  Check(CallCount("avx512") == -1 && CallCount(nullptr) == -1, "counters: unknown names");
  Check(SelectIsa("", &error), "dispatch: best");
}

}  // namespace cosetq::test
