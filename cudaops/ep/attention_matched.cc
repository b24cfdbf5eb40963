// Attention that a graph has in pieces, which patterns.cc finds.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <stdexcept>
#include <utility>

#include "attention.h"

namespace cosetq::ep {
namespace {

// An operand, with four dimensions where it has fewer: batches, heads, rows, columns; as it lies, steps of numbers from one of each to the next.
struct Matrices {
  const void* data;
  Shape shape, steps;
  int64_t alike = 1;  // heads next to each other that are the same; the step is to the next others

  // Nothing where they lie in other ways. fits: whether the last two steps are as the caller wants them.
  template <typename Fits>
  static std::optional<Matrices> As(const Tensor& of, const Strided& lies, const Fits& fits) {
    Matrices m{of.data(), {}, {}};
    for (size_t d = lies.rank(); d < 4; ++d) m.shape.push_back(1), m.steps.push_back(0);
    for (size_t d = 0; d < lies.rank(); ++d) {
      const Strided::Dimension own = lies[d];
      const bool repeated = m.shape.size() == 1 && !own.empty() && own.back().stride == 0;
      if (own.size() > (repeated ? 2 : 1)) return std::nullopt;
      if (repeated) m.alike = own.back().size;
      int64_t size = 1;
      for (const Strided::Factor& f : own) size *= f.size;
      m.shape.push_back(size);
      m.steps.push_back(own.empty() ? 0 : own[0].stride);
    }
    return fits(m) ? std::optional<Matrices>(m) : std::nullopt;
  }
  template <typename Fits>
  static Matrices Read(Call& call, size_t input, const Fits& fits) {
    std::optional<Matrices> m = As(call.in(input), call.AsItLies(input), fits);
    if (m) return *m;
    const Tensor whole = call.Whole(input);
    return *As(whole, Strided(whole.shape), [](const Matrices&) { return true; });
  }
  Shape batch() const { return {shape[0], shape[1]}; }
  // The step of a dimension over a result that has so many; 0 where it is repeated.
  int64_t Step(size_t d, int64_t count) const { return shape[d] == count ? steps[d] : 0; }
};

bool NextToEachOther(const Matrices& m, size_t d) { return m.shape[d] == 1 || m.steps[d] == 1; }

void RunMatched(Call& call) {
  const Attributes& attributes = call.node.attributes;
  const Type type = call.in(0).type;
  const bool across = attributes.Int("across", 0) != 0;
  const size_t key_rows = across ? 3 : 2, key_columns = across ? 2 : 3;
  const auto by_columns = [](const Matrices& m) { return m.alike == 1 && NextToEachOther(m, 3); };
  const Matrices q = Matrices::Read(call, 0, by_columns);
  const auto read_keys = [&](bool shared) {
    return Matrices::Read(call, 1, [&](const Matrices& m) { return (shared || m.alike == 1) && (NextToEachOther(m, 2) || NextToEachOther(m, 3)); });
  };
  const auto read_values = [&](bool shared) { return Matrices::Read(call, 2, [&](const Matrices& m) { return (shared || m.alike == 1) && NextToEachOther(m, 3); }); };
  Matrices k = read_keys(true), v = read_values(true);
  Attention a;
  Shape batch = BroadcastShape({q.batch(), k.batch(), v.batch()});
  int64_t queries = q.shape[2];
  Shape mask_steps;
  if (call.has(3)) {
    const std::optional<Shape> own = call.AsItLies(3).Simple();
    // Kernels count its keys forwards, and in int.
    if (!own || own->back() < 0 || own->back() > INT32_MAX / std::max<int64_t>(1, k.shape[key_rows])) call.Whole(3);
    Shape mask = call.in(3).shape;
    mask_steps = *call.AsItLies(3).Simple();
    mask.insert(mask.begin(), 4 - mask.size(), 1);
    mask_steps.insert(mask_steps.begin(), 4 - mask_steps.size(), 0);
    batch = BroadcastShape({batch, {mask[0], mask[1]}});
    queries = BroadcastShape({{queries}, {mask[2]}})[0];
    BroadcastStrides(mask, {batch[0], batch[1], queries, k.shape[key_rows]});  // or it says that they do not go together
  }
  a.batches = Extent(batch[0]);
  a.heads = a.kv_heads = Extent(batch[1]);
  a.queries = Extent(queries);
  a.width = Extent(q.shape[3]);
  a.keys = Extent(k.shape[key_rows]);
  a.value_width = Extent(v.shape[3]);
  if (k.shape[key_columns] != a.width || v.shape[2] != a.keys)
    throw std::invalid_argument("products of " + Text(call.in(0).shape) + ", " + Text(call.in(1).shape) + " and " + Text(call.in(2).shape));
  // Heads that share keys share values too, or all have their own.
  const bool one = k.shape[1] == 1 && v.shape[1] == 1 && k.alike == 1 && v.alike == 1;
  if (one && a.heads > 1) {
    a.kv_heads = 1;
  } else if (k.alike == v.alike && k.shape[1] == a.heads && v.shape[1] == a.heads) {
    a.kv_heads = Extent(a.heads / k.alike);
  } else if (k.alike != 1 || v.alike != 1) {
    k = read_keys(false);
    v = read_values(false);
  }
  const bool columns = NextToEachOther(k, key_columns);
  a.q = q.data;
  a.k = k.data;
  a.v = v.data;
  const auto places = [&](const Matrices& m, size_t row, int64_t rows, int64_t width) {
    return Places{m.Step(0, a.batches), m.Step(1, a.heads), rows == 1 ? width : m.Step(row, rows)};
  };
  a.q_at = places(q, 2, a.queries, a.width);
  a.k_at = places(k, key_rows, a.keys, a.width);
  a.k_step = columns ? 1 : k.steps[key_columns];
  a.v_at = places(v, 2, a.keys, a.value_width);
  a.scale = attributes.Float("scale", 1);
  a.empty = std::numeric_limits<float>::quiet_NaN();
  a.nan_is_zero = attributes.Int("nan_is_zero", 0) != 0;
  if (a.nan_is_zero || a.keys == 0) a.empty = 0;  // of no keys at all products are sums of nothing
  if (call.has(3)) {
    a.mask_kind = Attention::kAdd;
    a.mask = call.in(3).data();
    a.mask_at = {mask_steps[0], mask_steps[1], mask_steps[2]};
    a.mask_step = Extent(mask_steps[3]);
    a.mask_keys = a.keys;
  }
  const bool swapped = attributes.Int("swapped", 0) != 0;
  Shape shape = {a.batches, a.heads, a.queries, a.value_width};
  a.y_at = Places::ByHead(a.heads, a.queries, a.value_width);
  if (swapped) {
    std::swap(shape[1], shape[2]);
    a.y_at = Places::ByToken(a.heads, a.queries, a.value_width);
  }
  shape.erase(shape.begin(), shape.begin() + static_cast<std::ptrdiff_t>(4 - call.in(0).shape.size()));
  const Tensor y = call.Out(0, type, shape);
  a.y = y.data();
  Attend(call, type, a);
}

}  // namespace

const Operator& MatchedAttention() {
  static const Operator* matched = [] {
    auto* op = new Operator{"", RunMatched, {kFloats}};
    op->strided_inputs = 0b1111;
    return op;
  }();
  return *matched;
}

}  // namespace cosetq::ep
