// Times of the CPU kernels alone, one thread, best of many: per instruction set, codec, accuracy
// and batch.
//
//   cosetq_bench [rows cols [isa [codec [batch]]]]

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <string>

#include "cpu/dispatch.h"
#include "sample.h"

namespace cosetq::test {
namespace {

// Processor time of this thread, which other work on the machine disturbs least.
double Seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Best time of one call, for about a third of a second.
double BestTime(const Weight& weight, const Kernels& kernels, int64_t batch, Accuracy accuracy) {
  const WeightView& w = weight.view();
  std::vector<float> a(static_cast<size_t>(batch * w.cols)),
      y(static_cast<size_t>(batch * w.rows));
  std::mt19937_64 random(1);
  std::normal_distribution<float> normal;
  for (float& v : a) v = normal(random);
  LinearCall call;
  call.batch = batch;
  call.a = a.data();
  call.y = y.data();
  call.accuracy = accuracy;
  double best = 1e9;
  const double end = Seconds() + 0.3;
  do {
    TestHost host;
    const double start = Seconds();
    RunLinear(weight, kernels, call, &host);
    best = std::min(best, Seconds() - start);
  } while (Seconds() < end);
  return best;
}

bool Wanted(const char* wanted, const std::string& name) {
  return wanted == nullptr || name == wanted;
}

void Bench(int64_t rows, int64_t cols, const char* isa, const char* codec, const char* rows_of_a) {
  std::printf("%ld x %ld, one thread, best time in ms\n", rows, cols);
  std::printf("%-10s %-8s %5s %-8s %9s %12s\n", "isa", "codec", "batch", "path", "ms",
              "Gweights/s");
  for (const char* name : {"d4:4,4", "d4:2,4", "d4:4", "z1:16", "e8:2,2"}) {
    if (!Wanted(codec, name)) continue;
    Sample sample(CodecNamed(name), rows, cols, Options{}, 1);
    std::string error;
    const std::unique_ptr<Weight> weight = Weight::Create(sample.spec(), &error);
    int isas = 0;
    const char* const* names = AvailableIsas(&isas);
    for (int i = isas - 1; i >= 0; --i) {
      if (!Wanted(isa, names[i])) continue;
      SelectIsa(names[i], &error);
      const Kernels& kernels = ActiveKernels();
      for (int64_t batch : {1, 2, 3, 4, 16, 128}) {
        if (!Wanted(rows_of_a, std::to_string(batch))) continue;
        const Path accurate = ChoosePath(weight->view(), kernels, batch, Accuracy::kAccurate);
        for (Accuracy accuracy : {Accuracy::kAccurate, Accuracy::kFast}) {
          const Path path = ChoosePath(weight->view(), kernels, batch, accuracy);
          if (accuracy == Accuracy::kFast && path == accurate) continue;
          const double t = BestTime(*weight, kernels, batch, accuracy);
          std::printf("%-10s %-8s %5ld %-8s %9.3f %12.2f\n", names[i], name, batch,
                      PathName(path), t * 1e3,
                      static_cast<double>(rows * cols * batch) / t * 1e-9);
          std::fflush(stdout);
        }
      }
    }
  }
}

}  // namespace
}  // namespace cosetq::test

int main(int argc, char** argv) {
  const auto given = [&](int i) { return i < argc ? argv[i] : nullptr; };
  cosetq::test::Bench(argc > 2 ? std::atol(argv[1]) : 1024, argc > 2 ? std::atol(argv[2]) : 4096,
                      given(3), given(4), given(5));
}
