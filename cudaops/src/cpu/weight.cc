#include "weight.h"

#include <cmath>
#include <cstring>
#include <sstream>

#include "half.h"

namespace cosetq {
namespace {

constexpr int64_t kMaxDimension = int64_t{1} << 31;
constexpr size_t kMaxLevels = 16;

std::string Text(const std::vector<int64_t>& shape) {
  std::ostringstream out;
  out << "[";
  for (size_t i = 0; i < shape.size(); ++i) out << (i ? ", " : "") << shape[i];
  out << "]";
  return out.str();
}

template <typename... Parts>
bool Fail(std::string* error, const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  *error = out.str();
  return false;
}

bool CheckShape(const char* name, const TensorSpec& tensor, const std::vector<int64_t>& want,
                std::string* error) {
  if (tensor.shape == want && tensor.data != nullptr) return true;
  return Fail(error, "input ", name, " has shape ", Text(tensor.shape), ", want ", Text(want));
}

bool CheckList(const char* name, const std::vector<float>& got, const std::vector<float>& want,
               std::string* error) {
  if (got == want) return true;
  std::ostringstream list;
  for (float v : want) list << " " << v;
  return Fail(error, "attribute ", name, " must be", list.str());
}

bool CheckFinite(const char* name, const std::vector<float>& values, std::string* error) {
  for (float v : values) {
    if (!std::isfinite(v))
      return Fail(error, "attribute ", name, " holds a value that is not finite");
  }
  return true;
}

}  // namespace

std::unique_ptr<Weight> Weight::Create(const WeightSpec& spec, std::string* error) {
  std::unique_ptr<Weight> w(new Weight);
  if (!w->SetShape(spec, error) || !w->SetSlots(spec, error) || !w->SetCodebook(spec, error) ||
      !w->SetGains(spec, error) || !w->SetScales(spec, error) || !w->SetBias(spec, error) ||
      !w->SetRotation(spec, error)) {
    return nullptr;
  }
  auto tables = std::make_unique<FormTables>();
  w->view_.form = RecogniseForm(w->view_, tables.get());
  if (w->view_.form != Form::kGeneral) {
    w->tables_ = std::move(tables);
    w->view_.tables = w->tables_.get();
  }
  return w;
}

bool Weight::SetShape(const WeightSpec& spec, std::string* error) {
  WeightView& v = view_;
  if (spec.rows < 1 || spec.rows >= kMaxDimension)
    return Fail(error, "attribute N is ", spec.rows, ", want 1 to 2^31 - 1");
  if (spec.cols < 1 || spec.cols >= kMaxDimension)
    return Fail(error, "attribute K is ", spec.cols, ", want 1 to 2^31 - 1");
  const std::vector<int64_t>& shape = spec.codes.shape;
  if (shape.size() != 4)
    return Fail(error, "input codes has shape ", Text(shape),
                ", want [tiles, groups, elements, rows]");
  if (shape[3] < 1 || shape[3] > kTile)
    return Fail(error, "input codes has tiles of ", shape[3], " rows, want 1 to ", kTile);
  if (shape[2] < 1 || shape[2] > 1024)
    return Fail(error, "input codes has ", shape[2], " elements per group, want 1 to 1024");
  v.rows = spec.rows;
  v.cols = spec.cols;
  v.groups = (v.cols + kGroup - 1) / kGroup;
  v.tile = static_cast<int32_t>(shape[3]);
  v.tiles = (v.rows + v.tile - 1) / v.tile;
  v.elements = static_cast<int32_t>(shape[2]);
  v.code_bytes = spec.code_bytes;
  v.codes = spec.codes.data;
  if (reinterpret_cast<uintptr_t>(v.codes) % static_cast<uintptr_t>(v.code_bytes) != 0) {
    return Fail(error, "input codes stands at an odd address");
  }
  return CheckShape("codes", spec.codes, {v.tiles, v.groups, v.elements, v.tile}, error);
}

bool Weight::SetSlots(const WeightSpec& spec, std::string* error) {
  const std::vector<int64_t>& book = spec.codebook.shape;
  if (book.size() != 2 || book[0] < 1 || book[0] > (1 << 24)) {
    return Fail(error, "input codebook has shape ", Text(book), ", want [entries, dimension]");
  }
  const int64_t dim = book[1];
  if (dim != 1 && dim != 2 && dim != 4 && dim != 8) {
    return Fail(error, "input codebook has dimension ", dim, ", want 1, 2, 4 or 8");
  }
  const size_t levels = spec.level_weights.size();
  if (levels < 1 || levels > kMaxLevels) {
    return Fail(error, "attribute level_weights has ", levels, " values, want 1 to ", kMaxLevels);
  }
  if (!CheckFinite("level_weights", spec.level_weights, error) ||
      !CheckFinite("slots", spec.slots, error))
    return false;
  const int64_t count = static_cast<int64_t>(levels) * kGroup / dim;
  if (spec.slots_shape != std::vector<int64_t>{schema::kSlotFields, count} ||
      spec.slots.size() != static_cast<size_t>(schema::kSlotFields * count)) {
    return Fail(error, "attribute slots has shape ", Text(spec.slots_shape), ", want ",
                Text({schema::kSlotFields, count}));
  }
  const double code_range = spec.code_bytes == 1 ? 256 : 65536;
  for (int64_t s = 0; s < count; ++s) {
    double field[schema::kSlotFields];
    for (int f = 0; f < schema::kSlotFields; ++f) {
      field[f] = spec.slots[static_cast<size_t>(f * count + s)];
      if (field[f] != std::floor(field[f]))
        return Fail(error, "attribute slots: column ", s, " holds a fraction");
    }
    const double element = field[schema::kSlotElement], divisor = field[schema::kSlotDivisor];
    const double modulus = field[schema::kSlotModulus], base = field[schema::kSlotBase];
    if (element < 0 || element >= view_.elements) {
      return Fail(error, "attribute slots: column ", s, " names element ", element, " of ",
                  view_.elements);
    }
    if (divisor < 1 || divisor > code_range) {
      return Fail(error, "attribute slots: column ", s, " has divisor ", divisor, ", want 1 to ",
                  code_range);
    }
    if (modulus < 1 || modulus > code_range) {
      return Fail(error, "attribute slots: column ", s, " has modulus ", modulus, ", want 1 to ",
                  code_range);
    }
    if (base < 0 || base + modulus > static_cast<double>(book[0])) {
      return Fail(error, "attribute slots: column ", s, " reads codebook rows ", base, " to ",
                  base + modulus - 1, ", but there are ", book[0]);
    }
    slots_.push_back({static_cast<int32_t>(element), static_cast<int32_t>(divisor),
                      static_cast<int32_t>(modulus), static_cast<int32_t>(base)});
  }
  level_weights_ = spec.level_weights;
  view_.dim = static_cast<int32_t>(dim);
  view_.levels = static_cast<int32_t>(levels);
  view_.slot_count = static_cast<int32_t>(count);
  view_.slots = slots_.data();
  view_.level_weights = level_weights_.data();
  return true;
}

bool Weight::SetCodebook(const WeightSpec& spec, std::string* error) {
  if (!CheckShape("codebook", spec.codebook, spec.codebook.shape, error)) return false;
  if (spec.centre.size() != kGroup) {
    return Fail(error, "attribute centre has ", spec.centre.size(), " values, want ", kGroup);
  }
  if (!CheckFinite("centre", spec.centre, error)) return false;
  for (int j = 0; j < kGroup; ++j) view_.centre[j] = spec.centre[static_cast<size_t>(j)];

  const auto* bytes = static_cast<const int8_t*>(spec.codebook.data);
  const size_t entries = static_cast<size_t>(spec.codebook.shape[0]);
  const size_t dim = static_cast<size_t>(view_.dim);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  // A codebook of whole words already looks as the kernels want it. It can be large, so it is not
  // copied.
  if (dim >= 4 && reinterpret_cast<uintptr_t>(bytes) % alignof(int32_t) == 0) {
    view_.words = reinterpret_cast<const int32_t*>(bytes);
    return true;
  }
#endif
  const size_t per_entry = dim == 8 ? 2 : 1;
  words_.assign(entries * per_entry, 0);
  for (size_t i = 0; i < entries * dim; ++i) {
    const size_t place = i % dim;
    const uint32_t byte = static_cast<uint8_t>(bytes[i]);
    words_[i / dim * per_entry + place / 4] |= static_cast<int32_t>(byte << (8 * (place % 4)));
  }
  view_.words = words_.data();
  return true;
}

bool Weight::SetGains(const WeightSpec& spec, std::string* error) {
  const size_t count = spec.gain_values.size();
  if (!CheckFinite("gain_values", spec.gain_values, error)) return false;
  for (size_t i = 0; i < count && i < schema::kMaxGains; ++i)
    view_.gain_values[i] = spec.gain_values[i];
  std::vector<float> divisors;
  switch (count) {
    case 1:
      divisors = {1};
      break;
    case 2:
      divisors = {1, 2, 4, 8, 16, 32, 64, 128};
      break;
    case 4:
      divisors = {1, 4, 16, 64};
      break;
    case 16:
      divisors = {1, 16};
      break;
    default:
      return Fail(error, "attribute gain_values has ", count, " values, want 1, 2, 4 or 16");
  }
  if (!CheckList("gain_divisors", spec.gain_divisors, divisors, error)) return false;
  if (count == 1) return CheckShape("gains", spec.gains, {1, 1, 1}, error);
  view_.gains_per_byte = static_cast<int32_t>(divisors.size());
  view_.gain_bits = 8 / view_.gains_per_byte;
  view_.gains = static_cast<const uint8_t*>(spec.gains.data);
  const int64_t packed = (view_.groups + view_.gains_per_byte - 1) / view_.gains_per_byte;
  return CheckShape("gains", spec.gains, {view_.tiles, packed, view_.tile}, error);
}

bool Weight::SetScales(const WeightSpec& spec, std::string* error) {
  const size_t rows = static_cast<size_t>(view_.rows);
  const auto* index = static_cast<const uint8_t*>(spec.scale_index.data);
  const auto* halves = static_cast<const char*>(spec.scales.data);
  const bool direct = spec.scale_divisors.size() == 1;
  if (direct) {
    if (!CheckList("scale_divisors", spec.scale_divisors, {1}, error) ||
        !CheckShape("scales", spec.scales, {1, view_.rows}, error) ||
        !CheckShape("scale_index", spec.scale_index, {1}, error)) {
      return false;
    }
  } else if (!CheckList("scale_divisors", spec.scale_divisors, {1, 16}, error) ||
             !CheckShape("scales", spec.scales, {schema::kScaleTableSize, 1}, error) ||
             !CheckShape("scale_index", spec.scale_index, {(view_.rows + 1) / 2}, error)) {
    return false;
  }
  row_scales_.assign(static_cast<size_t>(view_.tiles * view_.tile), 0.0f);
  for (size_t n = 0; n < rows; ++n) {
    const size_t at = direct ? n : (index[n / 2] >> (4 * (n % 2))) & 15;
    uint16_t half;
    std::memcpy(&half, halves + at * sizeof half, sizeof half);
    row_scales_[n] = HalfToFloat(half);
  }
  view_.row_scales = row_scales_.data();
  return true;
}

bool Weight::SetBias(const WeightSpec& spec, std::string* error) {
  const std::vector<int64_t>& shape = spec.bias.shape;
  if (shape.size() != 1 || (shape[0] != 1 && shape[0] != view_.rows) || spec.bias.data == nullptr) {
    return Fail(error, "input bias has shape ", Text(shape), ", want [", view_.rows, "] or [1]");
  }
  const auto* data = static_cast<const char*>(spec.bias.data);
  std::vector<float> bias(static_cast<size_t>(view_.tiles * view_.tile), 0.0f);
  bool any = false;
  for (size_t n = 0; n < static_cast<size_t>(view_.rows); ++n) {
    const size_t at = shape[0] == 1 ? 0 : n;
    if (spec.half_bias) {
      uint16_t half;
      std::memcpy(&half, data + at * sizeof half, sizeof half);
      bias[n] = HalfToFloat(half);
    } else {
      std::memcpy(&bias[n], data + at * sizeof(float), sizeof(float));
    }
    any = any || bias[n] != 0;
  }
  if (any) {
    bias_ = std::move(bias);
    view_.bias = bias_.data();
  }
  return true;
}

bool Weight::SetRotation(const WeightSpec& spec, std::string* error) {
  if (spec.signs.data == nullptr && spec.rotation.empty()) return true;
  if (spec.rotation.size() != 1)
    return Fail(error, "attribute rotation has ", spec.rotation.size(), " values, want 1");
  const float size = spec.rotation[0];
  int64_t block = 1;
  while (block < schema::kMaxRotation && static_cast<float>(block) != size) block *= 2;
  if (static_cast<float>(block) != size || view_.cols % block != 0) {
    return Fail(error, "attribute rotation is ", size, ", want a power of two up to ",
                schema::kMaxRotation, " that divides K = ", view_.cols);
  }
  if (!CheckShape("signs", spec.signs, {(view_.cols + 7) / 8}, error)) return false;
  const auto* bits = static_cast<const uint8_t*>(spec.signs.data);
  const float scale = 1 / std::sqrt(size);
  std::vector<float> factors(static_cast<size_t>(view_.cols));
  bool any = block > 1;
  for (size_t k = 0; k < factors.size(); ++k) {
    const bool negative = (bits[k / 8] >> (k % 8) & 1) != 0;
    factors[k] = negative ? -scale : scale;
    any = any || negative;
  }
  if (any) rotation_ = {block, std::move(factors)};
  return true;
}

}  // namespace cosetq
