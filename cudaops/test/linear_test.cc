// Random weights of every codec against their decoding in double precision, on every instruction
// set of this machine.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "check.h"
#include "cpu/counters.h"
#include "cpu/dispatch.h"
#include "cpu/gather.h"
#include "cpu/half.h"
#include "cpu/linear_job.h"
#include "sample.h"

namespace cosetq::test {
namespace {

// Largest relative error of the whole output.
constexpr double kFloatBudget = 2e-6;
// With few rows the one large column can meet small weights; TestAccuracy has the real bounds.
constexpr double kSixteenBudget = 4e-4;  // 16-bit tables or activations
constexpr double kInt8Budget = 6e-2;
constexpr double kHalfBudget = 5e-4;  // of the rounding of Y to float16

double PathBudget(Path path) {
  switch (path) {
    case Path::kLookup16:
    case Path::kInt16:
      return kSixteenBudget;
    case Path::kLookup8:
    case Path::kInt8:
      return kInt8Budget;
    default:
      return kFloatBudget;
  }
}

constexpr float kGuard = 12345.0f;
constexpr size_t kGuardSize = 64;

struct Activations {
  std::vector<float> values;
  std::vector<uint16_t> halves;
};

// Normal numbers with some columns larger, rounded to float16 so that both types see the same.
Activations MakeActivations(int64_t batch, int64_t cols, uint64_t seed, float large = 30) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  Activations a;
  for (int64_t i = 0; i < batch * cols; ++i) {
    const float v = normal(random) * (i % cols % 97 == 5 ? large : 1.0f);
    a.halves.push_back(FloatToHalf(v));
    a.values.push_back(HalfToFloat(a.halves.back()));
  }
  return a;
}

// Runs the kernel with a guard band on both sides of Y. Empty when a guard was hurt.
std::vector<double> Run(const Weight& weight, const Kernels& kernels, const Activations& a,
                        int64_t batch, bool half, bool reverse,
                        Accuracy accuracy = Accuracy::kAccurate) {
  const size_t size = static_cast<size_t>(batch * weight.view().rows);
  std::vector<float> y(half ? 0 : size + 2 * kGuardSize, kGuard);
  std::vector<uint16_t> y_half(half ? size + 2 * kGuardSize : 0, FloatToHalf(kGuard));
  TestHost host(reverse);
  LinearCall call;
  call.batch = batch;
  call.accuracy = accuracy;
  if (half) {
    call.a_half = a.halves.data();
    call.y_half = y_half.data() + kGuardSize;
  } else {
    call.a = a.values.data();
    call.y = y.data() + kGuardSize;
  }
  if (RunLinear(weight, kernels, call, &host) != Outcome::kDone) return {};
  std::vector<double> out(size);
  for (size_t i = 0; i < kGuardSize; ++i) {
    const size_t after = kGuardSize + size + i;
    if (half ? y_half[i] != FloatToHalf(kGuard) || y_half[after] != FloatToHalf(kGuard)
             : y[i] != kGuard || y[after] != kGuard) {
      return {};
    }
  }
  for (size_t i = 0; i < size; ++i)
    out[i] = half ? HalfToFloat(y_half[kGuardSize + i]) : y[kGuardSize + i];
  return out;
}

std::vector<double> Reference(const Sample& sample, const std::vector<double>& w,
                              const Activations& a, int64_t batch, int64_t rows, int64_t cols) {
  std::vector<double> out(static_cast<size_t>(batch * rows));
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t n = 0; n < rows; ++n) {
      double sum = sample.Bias(n);
      const float* x = a.values.data() + b * cols;
      const double* row = w.data() + n * cols;
      for (int64_t k = 0; k < cols; ++k) sum += x[k] * row[k];
      out[static_cast<size_t>(b * rows + n)] = sum;
    }
  }
  return out;
}

double RelativeError(const std::vector<double>& got, const std::vector<double>& want) {
  double error = 0, size = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    error += (got[i] - want[i]) * (got[i] - want[i]);
    size += want[i] * want[i];
  }
  return size == 0 ? std::sqrt(error) : std::sqrt(error / size);
}

// Row after row, from the last on, with a guard behind each.
std::vector<double> GatherRows(const WeightView& w) {
  std::vector<double> all(static_cast<size_t>(w.rows * w.cols));
  for (int64_t n = w.rows - 1; n >= 0; --n) {
    std::vector<float> row(static_cast<size_t>(w.cols) + kGuardSize, kGuard);
    DecodeRow(w, n, row.data());
    if (std::count(row.begin() + w.cols, row.end(), kGuard) != static_cast<int64_t>(kGuardSize)) return {};
    std::copy(row.begin(), row.begin() + w.cols, all.begin() + n * w.cols);
  }
  return all;
}

void CheckWeight(const Codec& codec, int64_t rows, int64_t cols, const Options& options,
                 uint64_t seed) {
  Sample sample(codec, rows, cols, options, seed);
  std::string error;
  const std::unique_ptr<Weight> weight = Weight::Create(sample.spec(), &error);
  const std::string name = std::string(codec.name) + " " + std::to_string(rows) + "x" +
                           std::to_string(cols) + " gains " + std::to_string(options.gains.size()) +
                           (options.half ? " half" : "");
  if (!Check(weight != nullptr, name + ": refused: " + error)) return;
  const std::vector<double> w = sample.Decode();
  const std::vector<double> gathered = GatherRows(weight->view());
  Check(gathered.size() == w.size() && RelativeError(gathered, w) <= kFloatBudget,
        name + ": single rows differ from the weight, or write behind it");
  int isas = 0;
  const char* const* names = AvailableIsas(&isas);
  for (int64_t batch : {0, 1, 2, 3, 4, 5, 11, 16, 17, 69}) {
    const Activations a = MakeActivations(batch, cols, seed + static_cast<uint64_t>(batch));
    const std::vector<double> want = Reference(sample, w, a, batch, rows, cols);
    for (int i = 0; i < isas; ++i) {
      SelectIsa(names[i], &error);
      const Path accurate =
          ChoosePath(weight->view(), ActiveKernels(), batch, Accuracy::kAccurate);
      for (Accuracy accuracy : {Accuracy::kAccurate, Accuracy::kFast}) {
        const Path path = ChoosePath(weight->view(), ActiveKernels(), batch, accuracy);
        if (accuracy == Accuracy::kFast && path == accurate) continue;
        const std::string counter = std::string(names[i]) + "." + PathName(path);
        const std::string what = name + " batch " + std::to_string(batch) + " " + counter;
        const int64_t before = CallCount(counter.c_str());
        const auto run = [&](bool reverse) {
          return Run(*weight, ActiveKernels(), a, batch, options.half, reverse, accuracy);
        };
        const std::vector<double> got = run(false);
        if (!Check(got.size() == want.size(), what + ": wrote outside Y")) continue;
        const double off = RelativeError(got, want);
        Check(off <= PathBudget(path) + (options.half ? kHalfBudget : 0),
              what + ": relative error " + std::to_string(off * 1e6) + "e-6");
        Check(got == run(true), what + ": depends on the order of the pieces");
        Check(CallCount(counter.c_str()) == before + (batch == 0 ? 0 : 2),
              what + ": another path ran");
      }
    }
  }
  SelectIsa("", &error);
}

void CheckAccuracy(const Kernels& kernels) {
  constexpr int64_t kSize = 1024;
  constexpr size_t kCount = kSize;
  std::string error;
  Options options;
  options.bias = false;
  options.centre = 0.3f;  // its distance from integers in the presets
  const auto run = [&](const Weight& weight, const Activations& a, int64_t batch,
                       Accuracy accuracy) {
    return Run(weight, kernels, a, batch, false, false, accuracy);
  };
  for (const char* name : {"d4:4,4", "d4:2,4", "d4:4", "z1:16"}) {
    Sample sample(CodecNamed(name), kSize, kSize, options, 77);
    const std::unique_ptr<Weight> weight = Weight::Create(sample.spec(), &error);
    const std::vector<double> w = sample.Decode();
    for (int64_t batch : {1, 7}) {
      for (Accuracy accuracy : {Accuracy::kAccurate, Accuracy::kFast}) {
        const Path path = ChoosePath(weight->view(), kernels, batch, accuracy);
        const std::string what = std::string("accuracy ") + kernels.name + " " + name + " " + PathName(path);
        for (float scale : {1.0f, 1e-12f, 1e12f}) {
          // One activation a thousand times the others sets the error of its own block alone.
          for (float outlier : {1.0f, 1000.0f}) {
            Activations a = MakeActivations(batch, kSize, 5, 1);
            for (float& v : a.values) v *= scale;
            a.values[123] *= outlier;
            const double off = RelativeError(run(*weight, a, batch, accuracy),
                                             Reference(sample, w, a, batch, kSize, kSize));
            double bound = 1e-4;
            // AMX: of its own panel.
            if (outlier > 1 && std::strcmp(kernels.name, "amx") == 0) bound = 2.5e-4;
            if (path == Path::kInt8) bound = outlier > 1 ? 2e-2 : batch == 1 ? 1.3e-2 : 6e-3;
            if (path == Path::kLookup8) bound = outlier > 1 ? 3e-2 : 1.3e-2;
            Check(off <= bound, what + " scale " + std::to_string(scale) + " outlier " +
                                    std::to_string(outlier) + ": " + std::to_string(off * 1e6) +
                                    "e-6");
          }
        }
        Activations a = MakeActivations(batch, kSize, 6, 1);
        std::fill(a.values.begin(), a.values.begin() + kSize, 0.0f);
        const auto zeros = [&](const std::vector<double>& y) {
          return std::count(y.begin(), y.begin() + kSize, 0.0);
        };
        Check(zeros(run(*weight, a, batch, accuracy)) == kSize, what + " of zeros");
        for (float bad : {NAN, INFINITY, -INFINITY}) {
          a.values[7] = bad;
          const std::vector<double> got = run(*weight, a, batch, accuracy);
          size_t finite = 0;
          for (double v : got) finite += std::isfinite(v);
          Check(finite == got.size() - kCount, what + " hides or spreads " + std::to_string(bad));
        }
      }
    }
  }
}

// The sums of a unit have room for kMaxColumns rows of A, however many there are.
void CheckUnits() {
  for (int64_t columns : {6, 7, 16, 32, 64}) {
    for (int64_t tiles : {1, 7, 100}) {
      WeightView w = {};
      w.tile = kTile;
      w.tiles = tiles;
      w.groups = 9;
      int64_t most = 0;
      bool whole = true;
      for (int64_t batch = 1; batch < 300000; batch += 1 + batch / 50) {
        LinearCall call;
        call.batch = batch;
        Job job = {};
        job.w = &w;
        job.call = &call;
        job.SetColumns(columns);
        job.Divide(8, 1 << 16);
        most = std::max(most, job.blocks_per_unit * columns);
        const Unit last(job, static_cast<size_t>(job.Units() - 1));
        whole = whole && last.first_column + last.columns == batch && last.last_tile == tiles;
      }
      const std::string what = std::to_string(columns) + " columns, " + std::to_string(tiles) + " tiles: ";
      Check(most <= kMaxColumns, what + "units of " + std::to_string(most) + " columns");
      Check(whole, what + "the last unit does not end with the last row and tile");
    }
  }
}

}  // namespace

void TestManyRows() {
  CheckUnits();
  constexpr int64_t kRows = 10, kCols = 16, kBatch = 16171;
  std::string error;
  int isas = 0;
  const char* const* names = AvailableIsas(&isas);
  const Activations a = MakeActivations(kBatch, kCols, 3, 1);
  for (const char* codec : {"d4:4,4", "z1:16", "e8:2,2"}) {
    Sample sample(CodecNamed(codec), kRows, kCols, {}, 4);
    const std::unique_ptr<Weight> weight = Weight::Create(sample.spec(), &error);
    const std::vector<double> want = Reference(sample, sample.Decode(), a, kBatch, kRows, kCols);
    for (int i = 0; i < isas; ++i) {
      SelectIsa(names[i], &error);
      for (Accuracy accuracy : {Accuracy::kAccurate, Accuracy::kFast}) {
        const Path path = ChoosePath(weight->view(), ActiveKernels(), kBatch, accuracy);
        const double off = RelativeError(Run(*weight, ActiveKernels(), a, kBatch, false, false, accuracy), want);
        Check(off <= PathBudget(path), std::string(codec) + " many rows " + names[i] + "." + PathName(path) +
                                           ": relative error " + std::to_string(off * 1e6) + "e-6");
      }
    }
  }
  SelectIsa("", &error);
}

// Every instruction set takes its look-up tables where they are faster: falling back to decoding would only cost time.
void TestPaths() {
  std::string error;
  Options options;
  for (const char* codec : {"d4:4,4", "d4:2,4", "d4:4"}) {
    Sample sample(CodecNamed(codec), 8 * kTile, 64, options, 3);
    const std::unique_ptr<Weight> weight = Weight::Create(sample.spec(), &error);
    int count = 0;
    const char* const* names = AvailableIsas(&count);
    for (int i = 0; i < count; ++i) {
      SelectIsa(names[i], &error);
      const bool vectors = std::string(names[i]) != "portable";
      const auto check = [&](int64_t batch, Accuracy accuracy, Path want) {
        const Path path = ChoosePath(weight->view(), ActiveKernels(), batch, accuracy);
        Check(path == want, std::string("path of ") + names[i] + " " + codec + ", " + std::to_string(batch) + " rows: " + PathName(path) + ", want " + PathName(want));
      };
      check(1, Accuracy::kAccurate, vectors ? Path::kLookup16 : Path::kD4);
      check(1, Accuracy::kFast, vectors ? Path::kLookup8 : Path::kD4);
      check(2, Accuracy::kFast, vectors ? Path::kLookup8 : Path::kD4);
      check(16, Accuracy::kAccurate, vectors ? Path::kInt16 : Path::kD4);
    }
  }
  SelectIsa("", &error);
}

void TestLinear(bool brief) {
  const std::vector<int64_t> all_rows = {1, 10, 50, 63, 64, 65, 200, 257, 1000};
  const std::vector<int64_t> all_cols = {1, 7, 8, 9, 63, 100, 192, 512};
  std::vector<Options> options(7);
  options[1].gains = {1};
  options[1].direct_scales = true;
  options[2].gains = {1.5, 2.25};
  options[2].bias = false;
  options[3].gains = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  options[4].half = true;
  options[5].gains = {3, 4, 5, 5};
  options[5].centre = 3.3f;
  options[6].centre = 0;
  uint64_t seed = 1;
  for (const Codec& codec : Codecs()) {
    for (int64_t rows : all_rows) {
      for (int64_t cols : all_cols) {
        // Every option meets every codec and size in turn; all combinations would take minutes.
        ++seed;
        if (brief && seed % 5 != 0) continue;
        CheckWeight(codec, rows, cols, options[seed % options.size()], seed);
      }
    }
  }
  // The fast forms at sizes that choose look-up tables, with every option. More than 1024 columns have several slices of tables.
  const std::vector<int64_t> table_cols = {8, 15, 72, 128, 136}, sliced_cols = {1100, 2100};
  for (const char* name : {"d4:4,4", "d4:2,4", "d4:4", "d4:4,4 apart", "z1:16"}) {
    for (const Options& o : options) {
      for (int64_t cols : table_cols) {
        // In brief too every codec meets every option and every size.
        ++seed;
        if (!brief || seed % 3 == 0) CheckWeight(CodecNamed(name), 513, cols, o, seed);
      }
    }
    for (int64_t cols : sliced_cols) {
      ++seed;
      if (!brief || seed % 2 == 0) CheckWeight(CodecNamed(name), 513, cols, options[0], seed);
    }
  }
}

void TestAccuracy() {
  std::string error;
  int isas = 0;
  const char* const* names = AvailableIsas(&isas);
  for (int i = 0; i < isas; ++i) {
    SelectIsa(names[i], &error);
    CheckAccuracy(ActiveKernels());
  }
  SelectIsa("", &error);
}

}  // namespace cosetq::test
