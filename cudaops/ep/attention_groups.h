// Attention of many queries of float16 numbers, by the warp groups of Hopper.

#ifndef COSETQ_EP_ATTENTION_GROUPS_H_
#define COSETQ_EP_ATTENTION_GROUPS_H_

#include <cuda.h>

#include "attention_rules.cuh"

namespace cosetq::ep {

// A block takes so many rows, so many keys at a time.
constexpr int kGroups = 2, kGroupsThreads = 128 * (kGroups + 1), kGroupRows = 64, kGroupsRows = kGroups * kGroupRows, kGroupsKeys = 128;

// A kernel for heads up to 64 or 128 numbers wide, keys that lie by their numbers, masks that add or keep, and a scale above 0; plain: neither a mask nor a
// cap. It takes maps of keys and of values (row_map.h) with boxes of kGroupsKeys rows.
struct GroupsKernel {
  void (*run)(Rules<Half>, Division, CUtensorMap, CUtensorMap);
  int shared;  // bytes, which it may have
};
const GroupsKernel& GroupsKernelFor(int width, bool plain);

}  // namespace cosetq::ep

#endif  // COSETQ_EP_ATTENTION_GROUPS_H_
