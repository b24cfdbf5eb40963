// Times of what calibration and LDLQ multiply, one thread, best of many, per instruction set:
// products of matrices as LDLQ feeds errors back, refines and factors, and second moments.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/observe.h"

namespace cosetq::test {
namespace {

// Processor time of this thread, which other work on the machine disturbs least.
double Seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

void Report(const char* isa, const char* what, double products, const std::function<void()>& run) {
  double best = 1e9;
  const double end = Seconds() + 0.3;
  do {
    const double start = Seconds();
    run();
    best = std::min(best, Seconds() - start);
  } while (Seconds() < end);
  std::printf("%-10s %-44s %9.3f %9.1f\n", isa, what, best * 1e3, 2 * products / best * 1e-9);
  std::fflush(stdout);
}

template <typename T>
std::vector<T> Numbers(int64_t count) {
  std::mt19937_64 random(1);
  std::normal_distribution<T> normal;
  std::vector<T> v(static_cast<size_t>(count));
  for (T& x : v) x = normal(random);
  return v;
}

template <typename T, typename Add>
void BenchProduct(const char* isa, const char* what, int64_t rows, int64_t depth, int64_t columns,
                  Add add) {
  constexpr int64_t kStride = 1408;  // rows are parts of a row of a layer
  const auto a = Numbers<T>(rows * kStride), b = Numbers<T>(depth * kStride);
  std::vector<T> c(static_cast<size_t>(rows * kStride));
  Report(isa, what, static_cast<double>(rows * depth * columns), [&] {
    add(ProductWork<T>{c.data(), kStride, a.data(), kStride, b.data(), kStride, rows, depth, columns});
  });
}

void Bench() {
  std::printf("%-10s %-44s %9s %9s\n", "isa", "what", "ms", "GFLOP/s");
  int isas = 0;
  const char* const* names = AvailableIsas(&isas);
  for (int i = isas - 1; i >= 0; --i) {
    std::string error;
    SelectIsa(names[i], &error);
    const Kernels& kernels = ActiveKernels();
    BenchProduct<float>(names[i], "feedback, 64 x 1280 x 128", 64, 1280, 128, kernels.add_product);
    BenchProduct<float>(names[i], "gradient, 64 x 1408 x 1408", 64, 1408, 1408, kernels.add_product);
    BenchProduct<float>(names[i], "refinement, 1 x 8 x 1408", 1, 8, 1408, kernels.add_product);
    BenchProduct<double>(names[i], "factors, double, 704 x 704 x 32", 704, 704, 32,
                         kernels.add_product_double);
    const auto rows = Numbers<float>(512 * 1408);
    std::vector<Observation> observations(8, Observation(1408, true));  // of several layers: no cache holds them
    size_t next = 0;
    Report(names[i], "second moments, 512 rows of 1408", 512.0 * 1408 * 1409 / 2, [&] {
      ObservedRows call;
      call.rows = 512;
      call.a = rows.data();
      observations[next++ % observations.size()].Add(kernels, call, RunSerially);
    });
  }
}

}  // namespace
}  // namespace cosetq::test

int main() { cosetq::test::Bench(); }
