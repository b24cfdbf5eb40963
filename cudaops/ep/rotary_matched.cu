// The rotary embedding that a graph has in pieces, which patterns.cc finds: x * cosine + (-x2, x1) * sine, where x1 and x2 are the halves of a head.

#include <algorithm>
#include <array>
#include <utility>

#include "launch.h"
#include "operator.h"
#include "rotary.h"

namespace cosetq::ep {
namespace {

// kRun numbers at a time, all of one half.
template <typename T, int kRun>
struct HalvesKernel {
  struct alignas(sizeof(T) * kRun) Numbers {
    T of[kRun];
  };

  const T *x, *cosine, *sine;
  T* y;
  Layout<3> layout;  // x, cosine, sine
  int width;
  Divisor by_width;

  COSETQ_HD static Numbers At(const T* from) { return *reinterpret_cast<const Numbers*>(from); }

  COSETQ_HD void operator()(int i) const {
    const int place = i * kRun, d = place - by_width.Of(place) * width;
    const bool first = d < width / 2;
    int at[3];
    layout.At(place, at);
    const Numbers own = At(x + at[0]), other = At(x + at[0] + (first ? width / 2 : -(width / 2))), c = At(cosine + at[1]), s = At(sine + at[2]);
    Numbers out;
COSETQ_UNROLL
    for (int e = 0; e < kRun; ++e) out.of[e] = Turn<T>(first, ToFloat(own.of[e]), ToFloat(other.of[e]), ToFloat(c.of[e]), ToFloat(s.of[e]));
    *reinterpret_cast<Numbers*>(y + place) = out;
  }
};

template <typename T, int kRun>
void LaunchRuns(Call& call, const Tensor& y, const Layout<3>& layout, int width) {
  ForEach(call.stream, y.count() / kRun,
          HalvesKernel<T, kRun>{call.in(0).data<T>(), call.in(1).data<T>(), call.in(2).data<T>(), y.data<T>(), layout, width, Divisor(width)});
}

template <typename T>
void LaunchHalves(Call& call) {
  for (size_t i = 0; i < 3; ++i) {
    const std::optional<Shape> steps = call.AsItLies(i).Simple();
    // Halves of a head are found next to each other.
    if (!steps || (i == 0 && call.lies(0) != nullptr && steps->back() != 1)) call.Whole(i);
  }
  const Tensor& x = call.in(0);
  Shape own = x.shape, steps = *call.AsItLies(0).Simple();
  if (call.node.attributes.Int("swapped", 0) != 0) {
    std::swap(own.at(1), own.at(2));
    std::swap(steps.at(1), steps.at(2));
  }
  const Shape shape = BroadcastShape({own, call.in(1).shape, call.in(2).shape});
  const Tensor y = call.Out(0, x.type, shape);
  if (y.count() == 0) return;
  if (shape.back() != own.back()) throw std::invalid_argument("halves of " + Text(own) + " turned to " + Text(shape));
  CheckedCount(y.count());  // where x is repeated as well there can be more places than anything is read from
  const int width = CheckedCount(shape.back());
  const auto over = [&](Shape own_steps) {
    own_steps.insert(own_steps.begin(), shape.size() - own_steps.size(), 0);
    return own_steps;
  };
  const Layout<3> layout = MakeLayout<3>(shape, {over(steps), over(*call.AsItLies(1).Simple()), over(*call.AsItLies(2).Simple())});
  constexpr int kRun = 16 / sizeof(T);
  bool whole = width / 2 % kRun == 0;
  for (const auto& strides : layout.strides) {
    whole = whole && strides[0] == 1 && std::all_of(strides + 1, strides + layout.rank, [&](int stride) { return stride % kRun == 0; });
  }
  for (const void* p : {x.data(), call.in(1).data(), call.in(2).data(), y.data()}) whole = whole && reinterpret_cast<uintptr_t>(p) % 16 == 0;
  (whole ? LaunchRuns<T, kRun> : LaunchRuns<T, 1>)(call, y, layout, width);
}

void RunHalves(Call& call) { COSETQ_EP_FLOATS(call, call.in(0).type, LaunchHalves, call) }

}  // namespace

const Operator& MatchedRotation() {
  static const Operator* matched = [] {
    auto* op = new Operator{"", RunHalves, {kFloats}};
    op->strided_inputs = 0b111;
    return op;
  }();
  return *matched;
}

}  // namespace cosetq::ep
