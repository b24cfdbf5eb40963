// The windows of convolutions and pooling.

#ifndef COSETQ_EP_WINDOW_H_
#define COSETQ_EP_WINDOW_H_

#include "operator.h"

namespace cosetq::ep {

// Where a window of a kernel lies: of one to three dimensions, those that are missing ahead of them are 1.
struct Window {
  static constexpr int kDims = 3;
  int in[kDims] = {1, 1, 1}, out[kDims] = {1, 1, 1}, kernel[kDims] = {1, 1, 1};
  int stride[kDims] = {1, 1, 1}, dilation[kDims] = {1, 1, 1}, before[kDims] = {}, after[kDims] = {};

  int64_t places() const { return int64_t{out[0]} * out[1] * out[2]; }
  int64_t taps() const { return int64_t{kernel[0]} * kernel[1] * kernel[2]; }
};

Window WindowOf(const Call& call, const Shape& kernel);

// The shape of a result with so many channels.
Shape OutShape(const Shape& x, int64_t channels, const Window& w);

// Why windows over what a node has are not supported.
std::string CheckWindow(const Graph& graph, const Node& node);

}  // namespace cosetq::ep

#endif  // COSETQ_EP_WINDOW_H_
