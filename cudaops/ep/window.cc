#include "window.h"

#include <algorithm>
#include <stdexcept>

#include "launch.h"

namespace cosetq::ep {

Window WindowOf(const Call& call, const Shape& kernel) {
  const Attributes& attributes = call.node.attributes;
  const Shape& x = call.in(0).shape;
  const size_t dims = x.size() - 2;
  // An attribute of so many numbers, or all alike where it is missing.
  const auto list = [&](const char* name, size_t count, int64_t least, int64_t otherwise) {
    std::vector<int64_t> v = attributes.Ints(name);
    if (v.empty()) v.assign(count, otherwise);
    if (v.size() != count || std::any_of(v.begin(), v.end(), [&](int64_t n) { return n < least || n > INT32_MAX; }))
      throw std::invalid_argument(call.node.op + " of " + Text(x) + " with " + name + " " + Text(v));
    return v;
  };
  const std::vector<int64_t> strides = list("strides", dims, 1, 1), dilations = list("dilations", dims, 1, 1);
  const std::vector<int64_t> pads = list("pads", 2 * dims, -INT32_MAX, 0);
  if (kernel.size() != dims || Count(kernel) == 0) throw std::invalid_argument(call.node.op + " of " + Text(x) + " by a kernel of " + Text(kernel));
  const std::string automatic = attributes.String("auto_pad", "NOTSET");
  const bool same = automatic == "SAME_UPPER" || automatic == "SAME_LOWER";
  const bool ceil = attributes.Int("ceil_mode", 0) != 0;
  Window w;
  for (size_t d = 0; d < dims; ++d) {
    const size_t at = Window::kDims - dims + d;
    w.in[at] = CheckedCount(x[2 + d]);
    w.kernel[at] = CheckedCount(kernel[d]);
    w.stride[at] = static_cast<int>(strides[d]);
    w.dilation[at] = static_cast<int>(dilations[d]);
    const int reach = CheckedCount((kernel[d] - 1) * dilations[d] + 1);
    if (same) {
      w.out[at] = CheckedCount((x[2 + d] + strides[d] - 1) / strides[d]);
      const int total = CheckedCount(std::max<int64_t>(0, (w.out[at] - 1) * strides[d] + reach - x[2 + d]));
      w.before[at] = automatic == "SAME_UPPER" ? total / 2 : total - total / 2;
      w.after[at] = total - w.before[at];
      continue;
    }
    if (automatic != "VALID") {
      w.before[at] = static_cast<int>(pads[d]);
      w.after[at] = static_cast<int>(pads[dims + d]);
    }
    const int64_t room = x[2 + d] + w.before[at] + w.after[at] - reach;
    // Rounded up, a kernel that reaches beyond the end has a window all the same.
    const int64_t last = room + (ceil ? strides[d] - 1 : 0);
    w.out[at] = last < 0 ? 0 : CheckedCount(last / strides[d] + 1);
    // A last window that would begin in the padding behind is left out.
    if (ceil && (w.out[at] - 1) * strides[d] >= x[2 + d] + w.before[at]) --w.out[at];
  }
  return w;
}

Shape OutShape(const Shape& x, int64_t channels, const Window& w) {
  Shape shape = {x[0], channels};
  for (size_t d = Window::kDims - (x.size() - 2); d < Window::kDims; ++d) shape.push_back(w.out[d]);
  return shape;
}

std::string CheckWindow(const Graph& graph, const Node& node) {
  const int rank = graph.values[static_cast<size_t>(node.inputs[0])].rank;
  return rank >= 3 && rank <= 5 ? "" : "other than one to three dimensions";
}

}  // namespace cosetq::ep
