// Resize and Upsample: numbers between those of a grid.

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "launch.h"
#include "operator.h"

namespace cosetq::ep {
namespace {

enum class Place { kAlignCorners, kAsymmetric, kHalfPixel, kHalfPixelSymmetric, kPytorchHalfPixel, kTFHalfPixel };
enum class Rounding { kCeil, kFloor, kPreferCeil, kPreferFloor, kSimple };
enum class Interpolation { kNearest, kLinear, kCubic };

constexpr int kMaxAxes = 3, kMaxTaps = 4;  // that are resized; numbers of each that are added up

// What of an axis makes a number of the result.
struct Taps {
  int count = 1;
  int at[kMaxTaps] = {};
  float weight[kMaxTaps] = {1};
};

struct ResizedAxis {
  int in = 1, out = 1;
  float scale = 1;
};

struct Resizing {
  Place place;
  Rounding rounding;
  Interpolation interpolation;
  bool exclude_outside;
  float cubic;

  // Where a place of the result lies on the axis.
  COSETQ_HD float Origin(const ResizedAxis& a, int i) const {
    const auto x = static_cast<float>(i);
    switch (place) {
      case Place::kAlignCorners: return a.out == 1 ? 0 : x * static_cast<float>(a.in - 1) / static_cast<float>(a.out - 1);
      case Place::kAsymmetric: return x / a.scale;
      case Place::kHalfPixel: return (x + 0.5f) / a.scale - 0.5f;
      case Place::kHalfPixelSymmetric: {
        const float offset = static_cast<float>(a.in) / 2 * (1 - static_cast<float>(a.out) / (a.scale * static_cast<float>(a.in)));
        return offset + (x + 0.5f) / a.scale - 0.5f;
      }
      case Place::kPytorchHalfPixel: return a.out > 1 ? (x + 0.5f) / a.scale - 0.5f : 0;
      case Place::kTFHalfPixel: return (x + 0.5f) / a.scale;
    }
    return x;
  }

  COSETQ_HD static int Inside(float x, int n) { return x <= 0 ? 0 : x >= static_cast<float>(n - 1) ? n - 1 : static_cast<int>(x); }

  COSETQ_HD float Round(float x, bool shrinks) const {
    switch (rounding) {
      case Rounding::kCeil: return ceilf(x);
      case Rounding::kFloor: return floorf(x);
      case Rounding::kPreferCeil: return roundf(x);
      case Rounding::kPreferFloor: return x == floorf(x) + 0.5f ? floorf(x) : roundf(x);
      case Rounding::kSimple: return shrinks ? ceilf(x) : truncf(x);
    }
    return x;
  }

  // Of a cubic convolution, of a number so far away.
  COSETQ_HD float Cubic(float x) const {
    const float d = fabsf(x);
    if (d <= 1) return ((cubic + 2) * d - (cubic + 3)) * d * d + 1;
    return d < 2 ? ((cubic * d - 5 * cubic) * d + 8 * cubic) * d - 4 * cubic : 0;
  }

  COSETQ_HD void Find(const ResizedAxis& a, int i, Taps* taps) const {
    if (a.scale == 1) {
      taps->at[0] = i;
      return;
    }
    const float x = Origin(a, i);
    if (interpolation == Interpolation::kNearest) {
      taps->at[0] = Inside(Round(x, a.scale < 1), a.in);
    } else if (interpolation == Interpolation::kLinear) {
      const float inside = fminf(fmaxf(x, 0), static_cast<float>(a.in - 1));
      const int low = static_cast<int>(inside);
      const float part = inside - static_cast<float>(low);
      taps->count = 2;
      taps->at[0] = low;
      taps->at[1] = low + 1 < a.in ? low + 1 : a.in - 1;
      taps->weight[0] = 1 - part;
      taps->weight[1] = part;
    } else {
      const float low = floorf(x), part = x - low;
      float sum = 0;
      taps->count = kMaxTaps;
COSETQ_UNROLL
      for (int t = 0; t < kMaxTaps; ++t) {
        const float at = low + static_cast<float>(t - 1);
        const bool there = at >= 0 && at < static_cast<float>(a.in);
        taps->at[t] = Inside(at, a.in);
        taps->weight[t] = there || !exclude_outside ? Cubic(static_cast<float>(t - 1) - part) : 0;
        sum += taps->weight[t];
      }
      if (!exclude_outside) return;
COSETQ_UNROLL
      for (int t = 0; t < kMaxTaps; ++t) taps->weight[t] /= sum;
    }
  }
};

// Between resized axes, ahead of them and behind, all others are one each.
template <typename T>
struct ResizeKernel {
  Resizing resizing;
  ResizedAxis axes[kMaxAxes];
  int between[kMaxAxes + 1];
  const T* x;
  T* y;

  COSETQ_HD void operator()(int i) const {
    Taps taps[kMaxAxes];
    int rest = i, stride = 1, strides[kMaxAxes], base = 0;
COSETQ_UNROLL
    for (int d = kMaxAxes; d >= 0; --d) {
      base += rest % between[d] * stride;
      rest /= between[d];
      stride *= between[d];
      if (d == 0) break;
      strides[d - 1] = stride;
      resizing.Find(axes[d - 1], rest % axes[d - 1].out, &taps[d - 1]);
      rest /= axes[d - 1].out;
      stride *= axes[d - 1].in;
    }
    if (resizing.interpolation == Interpolation::kNearest) {
      y[i] = x[base + taps[0].at[0] * strides[0] + taps[1].at[0] * strides[1] + taps[2].at[0] * strides[2]];
      return;
    }
    float sum = 0;
    for (int a = 0; a < taps[0].count; ++a) {
      for (int b = 0; b < taps[1].count; ++b) {
        float line = 0;
        for (int c = 0; c < taps[2].count; ++c)
          line += taps[2].weight[c] * ToFloat(x[base + taps[0].at[a] * strides[0] + taps[1].at[b] * strides[1] + taps[2].at[c] * strides[2]]);
        sum += taps[0].weight[a] * taps[1].weight[b] * line;
      }
    }
    y[i] = FromFloat<T>(sum);
  }
};

// The tables of names end with a null.
struct Name {
  const char* name;
  int value;
};
constexpr Name kPlaces[] = {{"half_pixel", static_cast<int>(Place::kHalfPixel)},
                            {"align_corners", static_cast<int>(Place::kAlignCorners)},
                            {"asymmetric", static_cast<int>(Place::kAsymmetric)},
                            {"half_pixel_symmetric", static_cast<int>(Place::kHalfPixelSymmetric)},
                            {"pytorch_half_pixel", static_cast<int>(Place::kPytorchHalfPixel)},
                            {"tf_half_pixel_for_nn", static_cast<int>(Place::kTFHalfPixel)},
                            {nullptr, 0}};
constexpr Name kRoundings[] = {{"round_prefer_floor", static_cast<int>(Rounding::kPreferFloor)},
                               {"round_prefer_ceil", static_cast<int>(Rounding::kPreferCeil)},
                               {"floor", static_cast<int>(Rounding::kFloor)},
                               {"ceil", static_cast<int>(Rounding::kCeil)},
                               {nullptr, 0}};
constexpr Name kInterpolations[] = {{"nearest", static_cast<int>(Interpolation::kNearest)},
                                    {"linear", static_cast<int>(Interpolation::kLinear)},
                                    {"cubic", static_cast<int>(Interpolation::kCubic)},
                                    {nullptr, 0}};

// -1 where the name is not known; the first one where the attribute is missing.
int Named(const Node& node, const char* attribute, const Name* names) {
  const std::string own = node.attributes.String(attribute, names->name);
  for (; names->name != nullptr; ++names) {
    if (own == names->name) return names->value;
  }
  return -1;
}

bool Old(const Node& node) { return node.op == "Upsample" || node.version < 11; }

Resizing ResizingOf(const Node& node) {
  Resizing r = {};
  r.interpolation = static_cast<Interpolation>(Named(node, "mode", kInterpolations));
  r.place = Old(node) ? Place::kAsymmetric : static_cast<Place>(Named(node, "coordinate_transformation_mode", kPlaces));
  r.rounding = Old(node) ? Rounding::kSimple : static_cast<Rounding>(Named(node, "nearest_mode", kRoundings));
  r.exclude_outside = node.attributes.Int("exclude_outside", 0) != 0;
  r.cubic = node.attributes.Float("cubic_coeff_a", -0.75f);
  return r;
}

std::string CheckResize(const Graph&, const Node& node) {
  if (Named(node, "mode", kInterpolations) < 0) return "this mode of interpolation";
  if (Old(node)) return node.attributes.String("mode", "nearest") == "cubic" ? "this mode of interpolation" : "";
  if (Named(node, "coordinate_transformation_mode", kPlaces) < 0) return "this coordinate_transformation_mode";
  if (Named(node, "nearest_mode", kRoundings) < 0) return "this nearest_mode";
  if (node.attributes.Int("antialias", 0) != 0) return "antialias";
  return node.attributes.String("keep_aspect_ratio_policy", "stretch") == "stretch" ? "" : "this keep_aspect_ratio_policy";
}

// Scales by dimension, and the shape of the result.
void ReadSizes(const Call& call, std::vector<float>* scales, Shape* shape) {
  const Shape& x = call.in(0).shape;
  const size_t rank = x.size(), scale_input = Old(call.node) ? 1 : 2;
  const auto given = [&](size_t i) { return call.has(i) && call.host(i).count() > 0; };
  std::vector<int64_t> axes = call.node.attributes.Ints("axes");
  if (axes.empty()) {
    for (size_t d = 0; d < rank; ++d) axes.push_back(static_cast<int64_t>(d));
  }
  const std::vector<size_t> dims = Axes(axes, rank);
  std::vector<float> own = call.node.attributes.Floats("scales");
  if (given(scale_input)) own.assign(call.host(scale_input).data<float>(), call.host(scale_input).data<float>() + call.host(scale_input).count());
  std::vector<int64_t> sizes;
  if (own.empty() && !Old(call.node) && given(3)) sizes = call.Integers(3);
  if ((own.empty() ? sizes.size() : own.size()) != dims.size())
    throw std::invalid_argument(call.node.op + " of " + Text(x) + " along " + Text(axes) + " by " + std::to_string(own.empty() ? sizes.size() : own.size()) + " scales or sizes");
  scales->assign(rank, 1);
  *shape = x;
  for (size_t i = 0; i < dims.size(); ++i) {
    const size_t d = dims[i];
    if (own.empty()) {
      (*shape)[d] = sizes[i];
      (*scales)[d] = x[d] > 0 ? static_cast<float>(sizes[i]) / static_cast<float>(x[d]) : 1;
      continue;
    }
    const float n = own[i] * static_cast<float>(x[d]);
    if (!(own[i] > 0) || !(n < 2e9f)) throw std::invalid_argument(call.node.op + " of " + Text(x) + " by a scale of " + std::to_string(own[i]));
    (*scales)[d] = own[i];
    (*shape)[d] = static_cast<int64_t>(n);
  }
}

template <typename T>
void LaunchResize(Call& call) {
  const Tensor& x = call.in(0);
  std::vector<float> scales;
  Shape shape;
  ReadSizes(call, &scales, &shape);
  ResizeKernel<T> f = {};
  f.resizing = ResizingOf(call.node);
  std::fill(f.between, f.between + kMaxAxes + 1, 1);
  int axes = 0;
  for (size_t d = 0; d < shape.size(); ++d) {
    // Also one of the same size, where the scale says something else.
    if (shape[d] == x.shape[d] && scales[d] == 1) {
      f.between[axes] = CheckedCount(int64_t{f.between[axes]} * x.shape[d]);
      continue;
    }
    if (axes == kMaxAxes) throw std::invalid_argument(call.node.op + " of " + Text(x.shape) + " to " + Text(shape) + ": more than three axes");
    f.axes[axes++] = {CheckedCount(x.shape[d]), CheckedCount(shape[d]), scales[d]};
  }
  const Tensor y = call.Out(0, x.type, shape);
  if (y.count() == 0) return;
  if (x.count() == 0) throw std::invalid_argument(call.node.op + " of nothing, " + Text(x.shape) + ", to " + Text(shape));
  CheckedCount(x.count());
  f.x = x.data<T>();
  f.y = y.data<T>();
  ForEach(call.stream, y.count(), f);
}

void RunResize(Call& call) { COSETQ_EP_FLOATS(call, call.in(0).type, LaunchResize, call) }

}  // namespace

std::vector<Operator> ResizeOperators() {
  Operator resize{"Resize", RunResize, {kFloats, kFloats, Set(Type::kFloat), Set(Type::kInt64)}, 0b1110}, upsample{"Upsample", RunResize, {kFloats, Set(Type::kFloat)}, 0b10};
  resize.check = upsample.check = CheckResize;
  return {resize, upsample};
}

}  // namespace cosetq::ep
