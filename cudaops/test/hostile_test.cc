// Every way a node can lie about its tensors is refused by name when the kernel is made.

#include <cmath>
#include <functional>

#include "check.h"
#include "sample.h"

namespace cosetq::test {
namespace {

void Refused(const char* names, const std::function<void(WeightSpec*)>& spoil,
             const char* codec = "d4:2,4", const Options& options = {}) {
  Sample sample(CodecNamed(codec), 65, 100, options, 3);
  std::string error;
  if (!Check(Weight::Create(sample.spec(), &error) != nullptr,
             "hostile: unspoilt weight refused: " + error))
    return;
  spoil(&sample.spec());
  const bool refused = Weight::Create(sample.spec(), &error) == nullptr;
  Check(
      refused && error.find(names) != std::string::npos,
      std::string("hostile: want an error about ") + names + ", got " + (refused ? error : "none"));
}

void RefusedSlot(int field, float value) {
  Refused("slots", [=](WeightSpec* s) { s->slots[static_cast<size_t>(field) * 4 + 1] = value; });
}

}  // namespace

void TestHostileWeights() {
  Refused("attribute N", [](WeightSpec* s) { s->rows = 0; });
  Refused("attribute N", [](WeightSpec* s) { s->rows = int64_t{1} << 62; });
  Refused("attribute K", [](WeightSpec* s) { s->cols = -1; });
  Refused("codes", [](WeightSpec* s) { s->rows = 1000; });
  Refused("codes", [](WeightSpec* s) { s->cols = 200; });
  Refused("codes", [](WeightSpec* s) { s->codes.shape[3] = 65; });
  Refused("codes", [](WeightSpec* s) { s->codes.shape[3] = 0; });
  Refused("codes", [](WeightSpec* s) { s->codes.shape[2] = 0; });
  Refused("codes", [](WeightSpec* s) { s->codes.shape.pop_back(); });
  Refused("codes", [](WeightSpec* s) { s->codes.shape[0] += 1; });
  Refused("codebook", [](WeightSpec* s) { s->codebook.shape = {100}; });
  Refused("codebook", [](WeightSpec* s) { s->codebook.shape[1] = 3; });
  Refused("codebook", [](WeightSpec* s) { s->codebook.shape[0] = 0; });
  Refused("slots", [](WeightSpec* s) { s->codebook.shape[0] = 271; });
  Refused("slots", [](WeightSpec* s) { s->slots.pop_back(); });
  Refused("slots", [](WeightSpec* s) { s->slots_shape = {2, 8}; });
  Refused("level_weights", [](WeightSpec* s) { s->level_weights.clear(); });
  Refused("level_weights", [](WeightSpec* s) { s->level_weights[0] = NAN; });
  Refused("slots", [](WeightSpec* s) { s->level_weights.push_back(16); });
  Refused("centre", [](WeightSpec* s) { s->centre.pop_back(); });
  Refused("centre", [](WeightSpec* s) { s->centre[7] = INFINITY; });
  for (float v : {-1.0f, 3.0f, 0.5f, NAN, INFINITY, 1e30f}) RefusedSlot(schema::kSlotElement, v);
  for (float v : {0.0f, -16.0f, 1.5f, 257.0f, NAN}) RefusedSlot(schema::kSlotDivisor, v);
  for (float v : {0.0f, -1.0f, 17.0f, 2.5f, 1e9f}) RefusedSlot(schema::kSlotModulus, v);
  for (float v : {-1.0f, 257.0f, 0.25f, 1e30f, NAN}) RefusedSlot(schema::kSlotBase, v);
  Refused("gain_values", [](WeightSpec* s) { s->gain_values.push_back(7); });
  Refused("gain_values", [](WeightSpec* s) { s->gain_values.clear(); });
  Refused("gain_values", [](WeightSpec* s) { s->gain_values.assign(300, 1); });
  Refused("gain_values", [](WeightSpec* s) { s->gain_values[2] = NAN; });
  Refused("gain_divisors", [](WeightSpec* s) { s->gain_divisors[1] = 0; });
  Refused("gains", [](WeightSpec* s) { s->gains.shape[1] -= 1; });
  Refused("gains", [](WeightSpec* s) { s->gains.shape = {1, 1, 1}; });
  Refused("scale_divisors", [](WeightSpec* s) { s->scale_divisors = {1, 16, 256}; });
  Refused("scales", [](WeightSpec* s) { s->scales.shape = {15, 1}; });
  Refused("scale_index", [](WeightSpec* s) { s->scale_index.shape[0] -= 1; });
  Options direct;
  direct.direct_scales = true;
  Refused("scales", [](WeightSpec* s) { s->scales.shape[1] -= 1; }, "d4:2,4", direct);
  Refused("scale_divisors", [](WeightSpec* s) { s->scale_divisors.clear(); }, "d4:2,4", direct);
  Refused("bias", [](WeightSpec* s) { s->bias.shape[0] -= 1; });
  Refused("bias", [](WeightSpec* s) { s->bias.data = nullptr; });

  // K = 100 has room for blocks of 4 at most, and 13 bytes of signs.
  static const uint8_t kSigns[14] = {};
  const auto rotate = [](float block, int64_t bytes) {
    return [=](WeightSpec* s) {
      s->rotation = {block};
      s->signs.data = kSigns;
      s->signs.shape = {bytes};
    };
  };
  for (float block : {0.0f, -4.0f, 3.0f, 8.0f, 512.0f, 0.5f, NAN, INFINITY})
    Refused("rotation", rotate(block, 13));
  for (int64_t bytes : {int64_t{12}, int64_t{14}, int64_t{0}}) Refused("signs", rotate(4, bytes));
  Refused("rotation", [&](WeightSpec* s) {
    rotate(4, 13)(s);
    s->rotation.clear();
  });
  Refused("signs", [](WeightSpec* s) { s->rotation = {4}; });
}

}  // namespace cosetq::test
