// Activations as the small-batch kernel reads them: integers of 16 bits, in two bytes, in the order of the columns of a
// panel (views.h).
//
// A row a of the activations is a = step * q, |q| <= 32639, and q = 256 * high + low. The weights are u = gain * (v +
// bias), not gain * (v - centre) as they should be, so each group also has a correction -(bias * sum of q +
// <centre, q>), to be multiplied by the gain alone; it is an integer of 24 bits, in three bytes.
//
// Eight columns of the product are one tile of B. With up to four rows of activations one tile holds the high bytes of
// all, then the low bytes. With more, tiles alternate: high bytes of eight rows, low bytes of the same eight.

#ifndef COSETQ_CUDA_FRAGMENTS_H_
#define COSETQ_CUDA_FRAGMENTS_H_

#include <cstddef>
#include <cstdint>

#include "views.h"

namespace cosetq::cuda {

constexpr int kMaxSmallBatch = 16;

// Tiles of B for rows of activations: 4, 8 or 16.
constexpr int DataTiles(int rows) { return rows / 4; }
// Tiles of B whose bytes weigh 65536.
constexpr int TopTiles(int rows) { return rows <= 8 ? 1 : rows / 8; }

// A chunk: [pair of steps][tile][lane] 16 bytes, b0 and b1 of either step; then corrections, [tile][lane] 8 bytes, a byte
// per step: the tiles that go with the data's, then those with the top bytes.
constexpr int ChunkBytes(int rows) {
  return 4 * DataTiles(rows) * 512 + (DataTiles(rows) + TopTiles(rows)) * 256;
}

struct Fragments {
  unsigned char* chunks;  // [chunk]
  float* steps;           // [rows], by which a product is multiplied; NaN for rows that hold NaN or infinity
};

inline size_t FragmentBytes(const PackedView& w, int rows) {
  return static_cast<size_t>(w.chunks) * static_cast<size_t>(ChunkBytes(rows)) + 256;
}

inline Fragments FragmentsAt(void* workspace, const PackedView& w, int rows) {
  auto* at = static_cast<unsigned char*>(workspace);
  return {at, reinterpret_cast<float*>(at + static_cast<size_t>(w.chunks) *
                                                static_cast<size_t>(ChunkBytes(rows)))};
}

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_FRAGMENTS_H_
