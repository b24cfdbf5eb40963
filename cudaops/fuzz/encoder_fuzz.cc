// The encoder takes any constants and weights: it refuses them, or codes them inside its memory, and
// all instruction sets code them alike.

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/encode.h"
#include "input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cosetq;
  fuzz::Input in(data, size);
  cosetq_codec codec = {};
  codec.dim = in.Below(8) == 0 ? in.Take<int8_t>() : in.Below(2) == 0 ? 1 : 4;
  codec.levels = static_cast<int32_t>(in.Below(8) == 0 ? in.Take<int8_t>() : 1 + in.Below(3));
  codec.gain_count = static_cast<int32_t>(in.Below(8) == 0 ? in.Take<int8_t>() : 1 + in.Below(4));
  for (int32_t& r : codec.radices) r = in.Below(8) == 0 ? in.Take<int8_t>() : 2 << in.Below(2);
  for (float& g : codec.gains) g = in.Below(8) == 0 ? in.Take<float>() : static_cast<float>(1 + in.Below(8));
  for (float& c : codec.centre) c = in.Below(8) == 0 ? in.Take<float>() : static_cast<float>(in.Below(8)) / 8;
  codec.reach_one = in.Below(8) == 0 ? in.Take<float>() : static_cast<float>(in.Below(64)) / 4;
  codec.reach_two = in.Below(8) == 0 ? in.Take<float>() : static_cast<float>(in.Below(128)) / 4;
  codec.ray_shrink = in.Below(8) == 0 ? in.Take<float>() : 0.75f;
  codec.max_steps = in.Below(8) == 0 ? in.Take<float>() : 1e6f;
  codec.max_refinements = static_cast<int32_t>(in.Below(8));
  codec.max_overloads = static_cast<int32_t>(in.Below(64));
  // As many leaders as the classes of all levels, had every level a radix of 4.
  std::vector<int32_t> leaders(4 * 4 * 256);
  for (int32_t& v : leaders) v = in.Take<int8_t>() % 5;
  const std::unique_ptr<Encoder> encoder = Encoder::Create(codec, leaders.data());
  if (encoder == nullptr) return 0;

  const size_t groups = static_cast<size_t>(1 + in.Below(6)), count = static_cast<size_t>(1 + in.Below(4));
  std::vector<float> rows(count * groups * schema::kGroup), steps(count);
  for (float& v : steps) v = in.Below(8) == 0 ? in.Take<float>() : static_cast<float>(1 + in.Below(100)) / 64;
  for (float& v : rows) v = in.Below(16) == 0 ? in.Take<float>() : static_cast<float>(in.Take<int16_t>()) / 256;
  const size_t digits = count * groups * static_cast<size_t>(EncodeSlots(encoder->view()));
  std::vector<double> first_sse;
  std::vector<uint16_t> first_indices;
  std::vector<uint8_t> first_gains;
  int isas = 0;
  const char* const* names = AvailableIsas(&isas);
  for (int i = 0; i < isas; ++i) {
    std::string error;
    if (!SelectIsa(names[i], &error)) std::abort();
    std::vector<double> sse(count);
    std::vector<uint16_t> indices(digits);
    std::vector<uint8_t> gains(count * groups);
    encoder->Encode({rows.data(), static_cast<int64_t>(groups), nullptr, steps.data(), static_cast<int64_t>(count),
                     sse.data(), indices.data(), gains.data()});
    if (i == 0) {
      first_sse = sse, first_indices = indices, first_gains = gains;
    } else if (first_indices != indices || first_gains != gains ||
               std::memcmp(first_sse.data(), sse.data(), count * sizeof(double)) != 0) {
      std::abort();
    }
  }
  return 0;
}
