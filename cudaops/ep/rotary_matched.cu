// The rotary embedding that a graph has in pieces, which patterns.cc finds: x * cosine + (-x2, x1) * sine, where x1 and x2 are the halves of a head.
// Beside it what such graphs do next, which is to append keys and values to those of earlier tokens.

#include <algorithm>
#include <array>
#include <utility>

#include "launch.h"
#include "movement.h"
#include "operator.h"
#include "rotary.h"

namespace cosetq::ep {
namespace {

// kRun numbers at a time.
template <typename T, int kRun>
struct alignas(sizeof(T) * kRun) Numbers {
  T of[kRun];

  COSETQ_HD static const Numbers& At(const void* from, int64_t i) { return *reinterpret_cast<const Numbers*>(static_cast<const T*>(from) + i); }
  COSETQ_HD void Store(void* to, int64_t i) const { *reinterpret_cast<Numbers*>(static_cast<T*>(to) + i) = *this; }
};

// Heads that are turned, and where they go.
struct Turned {
  const void *x, *cosine, *sine;
  void* y;
  Layout<4> layout;  // x, cosine, sine, y
  int width;         // of a head
  Divisor by_width;
  int count;  // numbers

  // Numbers that are next to each other, all of one half.
  template <typename T, int kRun>
  COSETQ_HD void Make(int place) const {
    const int d = place - by_width.Of(place) * width;
    const bool first = d < width / 2;
    int at[4];
    layout.At(place, at);
    using Run = Numbers<T, kRun>;
    const Run own = Run::At(x, at[0]), other = Run::At(x, at[0] + (first ? width / 2 : -(width / 2))), c = Run::At(cosine, at[1]), s = Run::At(sine, at[2]);
    Run out;
COSETQ_UNROLL
    for (int e = 0; e < kRun; ++e) out.of[e] = Turn<T>(first, ToFloat(own.of[e]), ToFloat(other.of[e]), ToFloat(c.of[e]), ToFloat(s.of[e]));
    out.Store(y, at[3]);
  }
  bool InRuns(int run) const { return width / 2 % run == 0; }
};

struct Copied {
  const void* x;
  void* y;
  Layout<2> layout;  // x, y
  int count;

  template <typename T, int kRun>
  COSETQ_HD void Make(int place) const {
    int at[2];
    layout.At(place, at);
    Numbers<T, kRun>::At(x, at[0]).Store(y, at[1]);
  }
  bool InRuns(int run) const { return layout.dims[0] % run == 0; }
};

// Whether runs of 16 bytes lie together.
template <size_t kTensors, typename Part>
bool LiesInRuns(const Part& part, const std::array<const void*, kTensors>& addresses, int run) {
  if (!part.InRuns(run)) return false;
  for (const auto& strides : part.layout.strides) {
    if (strides[0] != 1 || !std::all_of(strides + 1, strides + part.layout.rank, [&](int stride) { return stride % run == 0; })) return false;
  }
  return std::all_of(addresses.begin(), addresses.end(), [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; });
}
bool LiesInRuns(const Turned& t, int run) { return LiesInRuns<4>(t, {t.x, t.cosine, t.sine, t.y}, run); }
bool LiesInRuns(const Copied& c, int run) { return c.count == 0 || LiesInRuns<2>(c, {c.x, c.y}, run); }

// An input that lies so that each dimension has one step: as it is, or copied.
Shape StepsOf(Call& call, size_t input, bool ends_together) {
  const std::optional<Shape> steps = call.AsItLies(input).Simple();
  if (!steps || (ends_together && call.lies(input) != nullptr && steps->back() != 1)) call.Whole(input);
  return *call.AsItLies(input).Simple();
}

// What turning heads needs to know beside where they go: inputs are x, cosines and sines.
struct Turning {
  std::array<const void*, 3> data;
  std::array<Shape, 3> steps;
  Shape shape;  // of the result

  Turning(Call& call, const std::array<size_t, 3>& inputs, bool swapped) {
    std::array<Shape, 3> own;
    for (size_t i = 0; i < 3; ++i) {
      steps[i] = StepsOf(call, inputs[i], i == 0);  // halves of a head are found next to each other
      own[i] = call.in(inputs[i]).shape;
      data[i] = call.in(inputs[i]).data();
    }
    if (swapped) {
      std::swap(own[0].at(1), own[0].at(2));
      std::swap(steps[0].at(1), steps[0].at(2));
    }
    shape = BroadcastShape({own[0], own[1], own[2]});
    if (Count(shape) > 0 && shape.back() != own[0].back()) throw std::invalid_argument("halves of " + Text(own[0]) + " turned to " + Text(shape));
    for (Shape& own_steps : steps) own_steps.insert(own_steps.begin(), shape.size() - own_steps.size(), 0);
  }
  Turned To(void* y, const Shape& y_steps) const {
    Turned t = {};
    t.count = CheckedCount(Count(shape));  // where x is repeated as well there can be more places than anything is read from
    t.x = data[0], t.cosine = data[1], t.sine = data[2], t.y = y;
    if (t.count == 0) return t;
    t.width = CheckedCount(shape.back());
    t.by_width = Divisor(t.width);
    t.layout = MakeLayout<4>(shape, {steps[0], steps[1], steps[2], y_steps});
    return t;
  }
};

template <typename T, int kRun>
struct TurnKernel {
  Turned turned;
  COSETQ_HD void operator()(int i) const { turned.Make<T, kRun>(i * kRun); }
};

template <typename T>
void TurnHalves(Call& call) {
  const Turning turning(call, {0, 1, 2}, call.node.attributes.Int("swapped", 0) != 0);
  const Tensor y = call.Out(0, call.in(0).type, turning.shape);
  if (y.count() == 0) return;
  const Turned turned = turning.To(y.data(), Strides(y.shape));
  constexpr int kRun = 16 / sizeof(T);
  if (LiesInRuns(turned, kRun)) {
    ForEach(call.stream, turned.count / kRun, TurnKernel<T, kRun>{turned});
  } else {
    ForEach(call.stream, turned.count, TurnKernel<T, 1>{turned});
  }
}

void RunHalves(Call& call) { COSETQ_EP_FLOATS(call, call.in(0).type, TurnHalves, call) }

// Queries and keys are turned, and keys and values put behind the earlier ones.
template <typename T, int kRun>
struct AppendKernel {
  Turned queries, keys;
  Copied past_keys, past_values, values;

  template <typename Part>
  COSETQ_HD static bool Takes(const Part& part, int* i) {
    const int runs = part.count / kRun;
    if (*i < runs) {
      part.template Make<T, kRun>(*i * kRun);
      return true;
    }
    *i -= runs;
    return false;
  }
  COSETQ_HD void operator()(int i) const { Takes(queries, &i) || Takes(keys, &i) || Takes(past_keys, &i) || Takes(past_values, &i) || Takes(values, &i); }

  int64_t count() const {
    return (int64_t{queries.count} + keys.count + past_keys.count + past_values.count + values.count) / kRun;
  }
};

// Inputs: queries, keys, values, cosines, sines, the past of keys and of values.
constexpr size_t kValues = 2, kPastKeys = 5, kPastValues = 6;

Copied CopyOf(Call& call, size_t input, const Tensor& to, int64_t first) {
  const Shape steps = StepsOf(call, input, false), to_steps = Strides(to.shape);
  const Tensor& from = call.in(input);
  Copied c = {};
  c.x = from.data();
  c.y = to.data<char>() + static_cast<size_t>(first * to_steps[2]) * SizeOf(to.type);
  c.count = CheckedCount(from.count());
  if (c.count > 0) c.layout = MakeLayout<2>(from.shape, {steps, to_steps});
  return c;
}

// The shape of what is appended to along the tokens.
Shape Grown(const Shape& past, const Shape& added) {
  Shape shape = past;
  if (past.size() == 4 && added.size() == 4) shape[2] = added[2];
  if (past.size() != 4 || shape != added) throw std::invalid_argument("Concat along axis 2 of " + Text(past) + " and " + Text(added));
  shape[2] += past[2];
  return shape;
}

template <typename T>
void Append(Call& call) {
  const Attributes& attributes = call.node.attributes;
  const Turning queries(call, {0, 3, 4}, attributes.Int("queries_swapped", 0) != 0), keys(call, {1, 3, 4}, attributes.Int("keys_swapped", 0) != 0);
  const Type type = call.in(0).type;
  const Shape key_shape = Grown(call.in(kPastKeys).shape, keys.shape), value_shape = Grown(call.in(kPastValues).shape, call.in(kValues).shape);
  const Tensor turned = call.Out(0, type, queries.shape), all_keys = call.Out(1, type, key_shape), all_values = call.Out(2, type, value_shape);
  const Shape steps = Strides(key_shape);
  const int64_t past_keys = call.in(kPastKeys).shape[2], past_values = call.in(kPastValues).shape[2];
  AppendKernel<T, 1> all = {queries.To(turned.data(), Strides(turned.shape)), keys.To(all_keys.data<T>() + past_keys * steps[2], steps),
                            CopyOf(call, kPastKeys, all_keys, 0), CopyOf(call, kPastValues, all_values, 0), CopyOf(call, kValues, all_values, past_values)};
  constexpr int kRun = 16 / sizeof(T);
  const bool together = LiesInRuns(all.queries, kRun) && LiesInRuns(all.keys, kRun) && LiesInRuns(all.past_keys, kRun) && LiesInRuns(all.past_values, kRun) &&
                        LiesInRuns(all.values, kRun);
  if (together) {
    const AppendKernel<T, kRun> runs = {all.queries, all.keys, all.past_keys, all.past_values, all.values};
    ForEach(call.stream, runs.count(), runs);
  } else {
    ForEach(call.stream, all.count(), all);
  }
}

void RunAppend(Call& call) { COSETQ_EP_FLOATS(call, call.in(0).type, Append, call) }

}  // namespace

const Operator& MatchedRotation() {
  static const Operator* matched = [] {
    auto* op = new Operator{"", RunHalves, {kFloats}};
    op->strided_inputs = 0b111;
    return op;
  }();
  return *matched;
}

const Operator& AppendOperator() {
  static const Operator* append = [] {
    auto* op = new Operator{"", RunAppend, {kFloats}};
    op->strided_inputs = 0b1111111;
    return op;
  }();
  return *append;
}

}  // namespace cosetq::ep
