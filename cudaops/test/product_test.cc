// Products of matrices on every instruction set: the bits of adding one product after the other.

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "cpu/dispatch.h"

namespace cosetq::test {
namespace {

void Add(const ProductWork<float>& work) { ActiveKernels().add_product(work); }
void Add(const ProductWork<double>& work) { ActiveKernels().add_product_double(work); }

template <typename T>
void TestProductOf(const std::string& type) {
  std::mt19937 random(7);
  std::normal_distribution<T> normal;
  const auto numbers = [&](int64_t count) {
    std::vector<T> v(static_cast<size_t>(count));
    for (T& x : v) x = normal(random);
    return v;
  };
  int count = 0;
  const char* const* names = AvailableIsas(&count);
  for (const int64_t rows : {1, 5, 13, 64}) {
    for (const int64_t columns : {1, 8, 31, 40, 104}) {
      for (const int64_t depth : {1, 8, 300}) {
        // Memory that is just large enough, rows of A and B further apart than they are long.
        const auto a = numbers((rows - 1) * (depth + 3) + depth);
        const auto b = numbers((depth - 1) * (columns + 1) + columns);
        const auto c = numbers(rows * columns);
        auto want = c;
        for (int64_t i = 0; i < rows; ++i) {
          for (int64_t j = 0; j < columns; ++j) {
            T& sum = want[static_cast<size_t>(i * columns + j)];
            for (int64_t k = 0; k < depth; ++k) {
              const T product = a[static_cast<size_t>(i * (depth + 3) + k)] *
                                    b[static_cast<size_t>(k * (columns + 1) + j)];
              sum = sum + product;
            }
          }
        }
        for (int n = 0; n < count; ++n) {
          std::string error;
          SelectIsa(names[n], &error);
          auto got = c;
          Add({got.data(), columns, a.data(), depth + 3, b.data(), columns + 1, rows, depth, columns});
          Check(got == want, "product of " + type + " " + names[n] + ": " + std::to_string(rows) + " × " +
                                 std::to_string(depth) + " × " + std::to_string(columns) +
                                 ": other bits than one by one");
        }
      }
    }
  }
  std::string error;
  SelectIsa("", &error);
}

}  // namespace

void TestProduct() {
  TestProductOf<float>("floats");
  TestProductOf<double>("doubles");
}

}  // namespace cosetq::test
