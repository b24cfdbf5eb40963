// ai.coset::Observe: rows of an activation, by what an error of each costs (cudaops/observe.go), added to what is kept under a tag.

#include <cmath>
#include <stdexcept>

#include "cosetq/schema.h"
#include "launch.h"
#include "matmul.h"
#include "observations.h"
#include "operator.h"

namespace cosetq::ep {
namespace {

// Rows of one product, whose sums are floats; those of several are added up in double.
constexpr int64_t kProductRows = 2048;
// Rows that one thread adds up.
constexpr int kSumRows = 64;
// Less energy counts as none, as on the processor.
constexpr double kLeastEnergy = 1e-60;

COSETQ_HD bool Finite(double x) { return x - x == 0; }

struct Add {
  template <typename V>
  COSETQ_HD V operator()(V a, V b) const {
    return a + b;
  }
};
struct Least {
  COSETQ_HD float operator()(float a, float b) const { return a < b ? a : b; }
};
struct Most {
  COSETQ_HD float operator()(float a, float b) const { return a > b ? a : b; }
};

// What is known of each row before it weighs anything.
struct RowView {
  double* energy;  // sum of squares: not finite where a number is not
  float *least, *most;
};

template <typename T>
struct Energy {
  const T* a;
  int columns;
  RowView out;

  COSETQ_HD void operator()(const Block& block, int row) const {
    double sum = 0;
    float least = INFINITY, most = -INFINITY;
    for (int k = block.thread(); k < columns; k += block.threads()) {
      const float x = ToFloat(a[int64_t{row} * columns + k]);
      sum += double{x} * x;
      least = Least()(x, least);
      most = Most()(x, most);
    }
    sum = block.Reduce(sum, 0.0, Add());
    least = block.Reduce(least, INFINITY, Least());
    most = block.Reduce(most, -INFINITY, Most());
    if (block.thread() != 0) return;
    out.energy[row] = sum;
    out.least[row] = least;
    out.most[row] = most;
  }
};

// Adds what the gradient of one layer says of each row.
template <typename T>
struct Importance {
  const T* gradient;
  int width;
  bool first;
  double* importance;

  COSETQ_HD void operator()(const Block& block, int row) const {
    double sum = 0;
    for (int k = block.thread(); k < width; k += block.threads()) {
      const float x = ToFloat(gradient[int64_t{row} * width + k]);
      sum += double{x} * x;
    }
    sum = block.Reduce(sum, 0.0, Add());
    if (block.thread() == 0) importance[row] = first ? sum : importance[row] + sum;
  }
};

// One block gives all rows their weights.
struct Weigh {
  int rows;
  bool alone;  // every row weighs 1
  RowView of;
  const double* importance;  // null: of all rows alike
  double* weight;            // 0 of rows that are left out
  float* root;               // of the weight; -1 of those
  Totals* totals;

  COSETQ_HD void operator()(const Block& block, int) const {
    const auto energy = [&](int row) { return of.energy[row] < kLeastEnergy ? 0 : of.energy[row]; };
    const auto cost = [&](int row) { return importance == nullptr ? 1 : importance[row]; };
    double total = 0;
    for (int row = block.thread(); row < rows; row += block.threads()) {
      const double own = energy(row) * cost(row);
      if (Finite(own)) total += own;
    }
    total = block.Reduce(total, 0.0, Add());
    const double even = total > 0 ? schema::kEvenShare : 1;
    int64_t kept = 0;
    double sum = 0;
    float least = INFINITY, most = -INFINITY;
    for (int row = block.thread(); row < rows; row += block.threads()) {
      double w = energy(row) > 0 ? even / (rows * energy(row)) : 0;
      if (total > 0) w += (1 - even) * cost(row) / total;
      if (alone) w = 1;
      const bool good = Finite(of.energy[row]) && Finite(w);
      weight[row] = good ? w : 0;
      root[row] = good ? static_cast<float>(sqrt(w)) : -1;
      if (!good) continue;
      ++kept;
      sum += w;
      least = Least()(of.least[row], least);
      most = Most()(of.most[row], most);
    }
    kept = block.Reduce(kept, int64_t{0}, Add());
    sum = block.Reduce(sum, 0.0, Add());
    least = block.Reduce(least, INFINITY, Least());
    most = block.Reduce(most, -INFINITY, Most());
    if (block.thread() != 0) return;
    if (kept > 0) {
      totals->minimum = totals->rows == 0 ? least : Least()(totals->minimum, least);
      totals->maximum = totals->rows == 0 ? most : Most()(totals->maximum, most);
    }
    totals->rows += kept;
    totals->bad_rows += rows - kept;
    totals->weight += sum;
  }
};

// Sums of w a, or w a a, of kSumRows rows and one column.
template <typename T>
struct ColumnSums {
  const T* a;
  int rows, columns;
  const double* weight;
  const float* root;
  bool squares;
  double* sums;

  COSETQ_HD void operator()(int place) const {
    const int column = place % columns, first = place / columns * kSumRows;
    double sum = 0;
    for (int row = first; row < rows && row < first + kSumRows; ++row) {
      if (root[row] < 0) continue;
      const double x = ToFloat(a[int64_t{row} * columns + column]);
      sum += weight[row] * (squares ? x * x : x);
    }
    sums[place] = sum;
  }
};

struct AddSums {
  int parts, columns;
  const double* from;
  double* to;

  COSETQ_HD void operator()(int column) const {
    double sum = 0;
    for (int part = 0; part < parts; ++part) sum += from[int64_t{part} * columns + column];
    to[column] += sum;
  }
};

// Rows times the roots of their weights.
template <typename T>
struct Scale {
  const T* a;
  const float* root;
  int columns;
  float* to;

  COSETQ_HD void operator()(int place) const {
    const float r = root[place / columns];
    to[place] = r < 0 ? 0 : r * ToFloat(a[place]);
  }
};

struct AddUpper {
  int columns;
  const float* from;
  double* to;

  COSETQ_HD void operator()(int place) const {
    const int64_t row = place / columns, column = place % columns;
    if (column >= row) to[row * columns - row * (row - 1) / 2 + column - row] += from[place];
  }
};

template <typename T>
void AddColumns(Call& call, const Tensor& a, int rows, int columns, const double* weight, const float* root, bool squares, double* to) {
  const int parts = (rows - 1) / kSumRows + 1;
  const Tensor sums = call.Scratch(Type::kInt64, {parts, columns});  // of eight bytes each
  ForEach(call.stream, int64_t{parts} * columns, ColumnSums<T>{a.data<T>(), rows, columns, weight, root, squares, sums.data<double>()});
  ForEach(call.stream, columns, AddSums{parts, columns, sums.data<double>(), to});
}

template <typename T>
void AddProducts(Call& call, const Tensor& a, int64_t rows, int columns, const float* root, double* to) {
  const Tensor scaled = call.Scratch(Type::kFloat, {std::min(rows, kProductRows), columns}), sums = call.Scratch(Type::kFloat, {columns, columns});
  Product p;
  p.m = p.n = columns;
  p.a_row = p.b_column = 1;
  p.a_column = p.b_row = columns;
  p.batch = MakeLayout<2>({}, {Shape{}, Shape{}});
  for (int64_t first = 0; first < rows; first += kProductRows) {
    const int64_t count = std::min(kProductRows, rows - first);
    ForEach(call.stream, count * columns, Scale<T>{a.data<T>() + first * columns, root + first, columns, scaled.data<float>()});
    p.k = static_cast<int>(count);
    Multiply(call.stream, p, Type::kFloat, scaled.data(), scaled.data(), nullptr, sums.data());
    ForEach(call.stream, int64_t{columns} * columns, AddUpper{columns, sums.data<float>(), to});
  }
}

template <typename T>
void AddRows(Call& call, Observation& to, bool alike) {
  const Tensor& a = call.in(0);
  const int columns = CheckedCount(to.columns), rows = CheckedCount(a.count() / to.columns);
  const Tensor doubles = call.Scratch(Type::kInt64, {3, rows}), floats = call.Scratch(Type::kFloat, {3, rows});
  const RowView view{doubles.data<double>(), floats.data<float>(), floats.data<float>() + rows};
  double *importance = view.energy + rows, *weight = importance + rows;
  float* root = view.most + rows;
  ForEachBlock(call.stream, rows, columns, Energy<T>{a.data<T>(), columns, view});
  for (size_t i = 1; i < call.inputs(); ++i) {
    const Tensor& gradient = call.in(i);
    if (gradient.count() % rows != 0) throw std::invalid_argument("a gradient of " + Text(gradient.shape) + " of an activation of " + Text(a.shape));
    const int width = CheckedCount(gradient.count() / rows);
    ForEachBlock(call.stream, rows, width, Importance<T>{gradient.data<T>(), width, i == 1, importance});
  }
  const bool alone = rows == 1 || (call.inputs() == 1 && !alike);
  ForEachBlock(call.stream, 1, rows, Weigh{rows, alone, view, call.inputs() > 1 ? importance : nullptr, weight, root, to.totals()});
  AddColumns<T>(call, a, rows, columns, weight, root, false, to.sums());
  if (to.full) {
    AddProducts<T>(call, a, rows, columns, root, to.moments());
  } else {
    AddColumns<T>(call, a, rows, columns, weight, root, true, to.moments());
  }
}

struct Put {
  float value;
  float* to;
  COSETQ_HD void operator()(int) const { *to = value; }
};

void RunObserve(Call& call) {
  const Tensor& a = call.in(0);
  const Attributes& attributes = call.node.attributes;
  const std::string tag = attributes.String(schema::kAttrTag, ""), mode = attributes.String(schema::kAttrMode, "");
  if (a.shape.empty() || a.shape.back() <= 0) throw std::invalid_argument("input A of " + tag + " has no columns");
  const bool off = mode == schema::kModeOff;
  const int64_t rows = a.count() / a.shape.back();
  ForEach(call.stream, 1, Put{off ? 0 : static_cast<float>(rows), call.Out(0, Type::kFloat, {1}).data<float>()});
  if (off) return;
  const std::shared_ptr<Observation> to = ObservationFor(tag, a.shape.back(), mode == schema::kModeFull);
  if (rows == 0) return;
  const std::lock_guard<std::mutex> lock(to->mutex);
  to->Begin(call.stream);
  COSETQ_EP_FLOATS(call, a.type, AddRows, call, *to, attributes.Int(schema::kAttrAlike, 0) != 0);
  to->End(call.stream);
}

// What is wrong with a node the processor's kernel says.
std::string CheckObserve(const Graph& graph, const Node& node) {
  const std::string mode = node.attributes.String(schema::kAttrMode, "");
  if (!node.attributes.Has(schema::kAttrTag) || (mode != schema::kModeFull && mode != schema::kModeDiagonal && mode != schema::kModeOff))
    return "its attributes";
  for (int v : node.inputs) {
    if (v < 0 || graph.values[static_cast<size_t>(v)].type != graph.values[static_cast<size_t>(node.inputs[0])].type) return "inputs of different types";
  }
  return "";
}

}  // namespace

std::vector<Operator> ObserveOperators() {
  Operator observe{schema::kObserveName, RunObserve, {kFloats}};
  observe.domain = schema::kDomain;
  observe.heavy = true;
  observe.remembers = true;
  observe.check = CheckObserve;
  return {observe};
}

}  // namespace cosetq::ep
