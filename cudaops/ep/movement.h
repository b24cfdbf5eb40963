// The copies that most of the moving operators are.

#ifndef COSETQ_EP_MOVEMENT_H_
#define COSETQ_EP_MOVEMENT_H_

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "operator.h"

namespace cosetq::ep {

// Sixteen bytes that move as one.
struct alignas(16) Piece {
  uint64_t of[2];
};

// The largest number of elements of a size that move as one where runs of so many lie together, at multiples of themselves: all that is given,
// in elements, and addresses in bytes.
inline size_t Together(size_t size, std::initializer_list<int64_t> elements, std::initializer_list<const void*> addresses) {
  size_t n = sizeof(Piece) / size;
  const auto lie = [&] {
    return std::all_of(elements.begin(), elements.end(), [&](int64_t e) { return e % static_cast<int64_t>(n) == 0; }) &&
           std::all_of(addresses.begin(), addresses.end(), [&](const void* p) { return reinterpret_cast<uintptr_t>(p) % (n * size) == 0; });
  };
  while (n > 1 && !lie()) n /= 2;
  return n;
}

// Calls use with an unsigned number, or a Piece, of so many bytes.
template <typename Use>
void ForSize(size_t bytes, const Use& use) {
  switch (bytes) {
    case 1: return use(uint8_t());
    case 2: return use(uint16_t());
    case 4: return use(uint32_t());
    case 8: return use(uint64_t());
    default: return use(Piece());
  }
}

// Copies elements from x to y, each with its first element and its strides, walking over shape.
void Move(Stream& stream, const Shape& shape, const Tensor& x, int64_t x_first, const Shape& x_strides,
          const Tensor& y, int64_t y_first, const Shape& y_strides);

// Has rows of y, so wide, be one of every tensor after the other, by one kernel. False, and nothing is done, for more tensors or numbers than that takes.
bool Join(Stream& stream, const std::vector<const Tensor*>& tensors, int64_t width, const Tensor& y);

// How many of those copies were started, see cosetq/ep.h.
int64_t TotalMoves();

// Gives output i of the numbers of a tensor as they lie, where they are or else as a copy.
void Rearrange(Call& call, size_t i, const Tensor& of, const Strided& lies);
// Gather of one index, the attribute "index", of its input.
const Operator& PickOperator();

// A tensor's numbers from one on.
Tensor From(const Tensor& of, int64_t first);

}  // namespace cosetq::ep

#endif  // COSETQ_EP_MOVEMENT_H_
