// MatMul and Gemm, and what ONNX Runtime fuses them into.

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "launch.h"
#include "matmul.h"
#include "operator.h"

namespace cosetq::ep {
namespace {

// With the rows and columns of a matrix taken from a shape of at least one dimension.
void RunMatMul(Call& call) {
  const Tensor &a = call.in(0), &b = call.in(1);
  const Attributes& attributes = call.node.attributes;
  const bool transpose_a = attributes.Int("transA", 0) != 0, transpose_b = attributes.Int("transB", 0) != 0;
  Shape as = a.shape, bs = b.shape;
  const bool vector_a = as.size() == 1, vector_b = bs.size() == 1;
  if (as.empty() || bs.empty()) throw std::invalid_argument("MatMul of a scalar");
  if (vector_a) as.insert(as.begin(), 1);
  if (vector_b) bs.push_back(1);
  const size_t ra = as.size(), rb = bs.size();
  Product p;
  p.m = CheckedCount(as[transpose_a && !vector_a ? ra - 1 : ra - 2]);
  p.k = CheckedCount(as[transpose_a && !vector_a ? ra - 2 : ra - 1]);
  p.n = CheckedCount(bs[transpose_b && !vector_b ? rb - 2 : rb - 1]);
  if (bs[transpose_b && !vector_b ? rb - 1 : rb - 2] != p.k)
    throw std::invalid_argument("MatMul of " + Text(a.shape) + " and " + Text(b.shape));
  p.a_row = as[ra - 1];
  p.a_column = 1;
  if (transpose_a && !vector_a) std::swap(p.a_row, p.a_column);
  p.b_row = bs[rb - 1];
  p.b_column = 1;
  if (transpose_b && !vector_b) std::swap(p.b_row, p.b_column);
  p.alpha = attributes.Float("alpha", 1);
  const Shape batch_a(as.begin(), as.end() - 2), batch_b(bs.begin(), bs.end() - 2);
  Shape shape = BroadcastShape({batch_a, batch_b});
  const auto strides = [&](const Shape& batch, int64_t matrix) {
    Shape s = BroadcastStrides(batch, shape);
    for (int64_t& step : s) step *= matrix;
    return s;
  };
  // Many matrices times one are one matrix with more rows.
  const bool one_b = Count(batch_b) == 1;
  if (one_b && !transpose_a) {
    p.m = CheckedCount(p.m * Count(batch_a));
    p.batch = MakeLayout<2>({}, {Shape{}, Shape{}});
  } else {
    p.batches = CheckedCount(Count(shape));
    p.batch = MakeLayout<2>(shape, {strides(batch_a, as[ra - 1] * as[ra - 2]), strides(batch_b, bs[rb - 1] * bs[rb - 2])});
  }
  const int64_t rows = as[transpose_a && !vector_a ? ra - 1 : ra - 2];
  if (!vector_a) shape.push_back(rows);
  if (!vector_b) shape.push_back(p.n);
  const Tensor y = call.Out(0, a.type, shape);
  Multiply(call.stream, p, a.type, a.data(), b.data(), nullptr, y.data());
}

std::string CheckMatMul(const Graph&, const Node& node) {
  return node.attributes.Int("transBatchA", 0) != 0 || node.attributes.Int("transBatchB", 0) != 0
             ? "transposed batches"
             : "";
}

}  // namespace

bool FindActivation(const Node& node, UnaryFunction* f) {
  const std::string name = node.attributes.String("activation", "");
  static const struct {
    const char* name;
    Unary kind;
    float alpha, beta;
  } known[] = {{"", Unary::kIdentity, 0, 0},
               {"Relu", Unary::kRelu, 0, 0},
               {"Sigmoid", Unary::kSigmoid, 0, 0},
               {"Tanh", Unary::kTanh, 0, 0},
               {"LeakyRelu", Unary::kLeakyRelu, 0.01f, 0},
               {"Clip", Unary::kClip, -INFINITY, INFINITY},
               {"HardSigmoid", Unary::kHardSigmoid, 0.2f, 0.5f}};
  for (const auto& k : known) {
    if (name != k.name) continue;
    const std::vector<float> list = node.attributes.Floats("activation_params");
    *f = {k.kind, node.attributes.Float("activation_alpha", !list.empty() ? list[0] : k.alpha),
          node.attributes.Float("activation_beta", list.size() > 1 ? list[1] : k.beta)};
    return true;
  }
  return false;
}

namespace {

void RunGemm(Call& call) {
  const Tensor &a = call.in(0), &b = call.in(1);
  const Attributes& attributes = call.node.attributes;
  const bool transpose_a = attributes.Int("transA", 0) != 0, transpose_b = attributes.Int("transB", 0) != 0;
  if (a.shape.size() != 2 || b.shape.size() != 2) throw std::invalid_argument("Gemm of other than matrices");
  Product p;
  p.m = CheckedCount(a.shape[transpose_a]);
  p.k = CheckedCount(a.shape[!transpose_a]);
  p.n = CheckedCount(b.shape[!transpose_b]);
  if (b.shape[transpose_b] != p.k) throw std::invalid_argument("Gemm of " + Text(a.shape) + " and " + Text(b.shape));
  p.a_row = transpose_a ? 1 : a.shape[1];
  p.a_column = transpose_a ? a.shape[1] : 1;
  p.b_row = transpose_b ? 1 : b.shape[1];
  p.b_column = transpose_b ? b.shape[1] : 1;
  p.alpha = attributes.Float("alpha", 1);
  p.beta = attributes.Float("beta", 1);
  p.batch = MakeLayout<2>({}, {Shape{}, Shape{}});
  FindActivation(call.node, &p.f);
  const Tensor y = call.Out(0, a.type, {p.m, p.n});
  const void* d = nullptr;
  if (call.has(2) && p.beta != 0) {  // times 0 it would still bring its NaN
    const Shape strides = BroadcastStrides(call.in(2).shape, y.shape);
    p.d_row = strides[0];
    p.d_column = strides[1];
    d = call.in(2).data();
  }
  Multiply(call.stream, p, a.type, a.data(), b.data(), d, y.data());
}

std::string CheckGemm(const Graph&, const Node& node) {
  UnaryFunction f;
  if (!FindActivation(node, &f)) return "this fused activation";
  return node.attributes.Has("broadcast") ? "broadcasting of opset 6" : "";
}

Operator Heavy(const char* name, const char* domain, void (*run)(Call&), std::string (*check)(const Graph&, const Node&), const char* attributes = nullptr) {
  Operator op{name, run, {kFloats}};
  op.domain = domain;
  op.attributes = attributes;
  op.heavy = true;
  op.check = check;
  return op;
}

}  // namespace

std::vector<Operator> MatrixOperators() {
  return {
      Heavy("MatMul", "", RunMatMul, nullptr),
      Heavy("FusedMatMul", "com.microsoft", RunMatMul, CheckMatMul, "alpha transA transB transBatchA transBatchB"),
      Heavy("Gemm", "", RunGemm, CheckGemm),
      Heavy("FusedGemm", "com.microsoft", RunGemm, CheckGemm,
            "activation activation_alpha activation_beta activation_gamma activation_params alpha beta transA transB"),
  };
}

}  // namespace cosetq::ep
