// From digits to bytes: the codebook in shared memory, one copy per bank, so that 32 lanes look up 32 different entries in
// one go.

#ifndef COSETQ_CUDA_LOOKUP_CUH_
#define COSETQ_CUDA_LOOKUP_CUH_

#include <type_traits>

#include "views.h"

namespace cosetq::cuda {

constexpr int TableWords(Form form) {
  return IsColumns(form) ? 0 : (256 + (form == Form::kNibbleByte ? 16 : 0)) * 32;
}

// The codebook on its way to shared memory: a table of 256 entries, after it one of 16 if the form has one. Each entry of the large
// table is the work of kThreads / 256 threads.
template <Form kForm, int kThreads>
class Table {
 public:
  // Begins to load it: that of a view of the weights.
  template <typename View>
  __device__ __forceinline__ explicit Table(const View& v) {
    if constexpr (IsColumns(kForm)) return;
    word_ = __ldg((kForm == Form::kNibbleByte ? v.coarse : v.fine) + Entry());
    if (kForm == Form::kNibbleByte && threadIdx.x < 16 * 8) small_ = __ldg(v.fine + threadIdx.x / 8);
  }
  __device__ __forceinline__ explicit Table(const PackedView& w) : Table(w.bytes) {}

  __device__ __forceinline__ void Store(uint32_t* table) const {
    if constexpr (IsColumns(kForm)) return;
    if (threadIdx.x < 256 * kPer) {
#pragma unroll
      for (int i = 0; i < 8 / kPer; ++i)
        reinterpret_cast<uint4*>(table)[Entry() * 8 + threadIdx.x % kPer * (8 / kPer) + (i + Entry()) % (8 / kPer)] =
            make_uint4(word_, word_, word_, word_);  // eight threads write to different banks
    }
    if (kForm == Form::kNibbleByte && threadIdx.x < 16 * 8)
      reinterpret_cast<uint4*>(table)[256 * 8 + threadIdx.x] = make_uint4(small_, small_, small_, small_);
  }

 private:
  static constexpr int kPer = IsColumns(kForm) ? 1 : kThreads / 256;
  static_assert(IsColumns(kForm) || kPer == 1 || kPer == 2);
  __device__ __forceinline__ static int Entry() { return min(static_cast<int>(threadIdx.x) / kPer, 255); }

  uint32_t word_ = 0, small_ = 0;
};

// Where single columns lie in the words of a lane, of which two bytes are coordinates j and j + 1 of a group, j even, and two those of the
// next group: which word has coordinate j of the eight groups up from 8 * eight; and the bits of row g + 8 * half in a byte.
__host__ __device__ constexpr int ColumnWord(Form form, int j, int eight) { return form == Form::kTwoBits ? j / 2 * 2 + eight / 2 : j / 2 * 4 + eight; }
__host__ __device__ constexpr int DigitPlace(Form form, int half, int eight) { return form == Form::kTwoBits ? 4 * (eight % 2) + 2 * half : 4 * half; }
// The bit of the word at which the digits lie that a lane has in a step.
__host__ __device__ constexpr int DigitBit(Form form, int j, int step, int half) { return 16 * (step % 2) + 8 * (j % 2) + DigitPlace(form, half, step / 2); }
// The unit of weights of rows g + 8 * half in a step (DecodeStep): digits of two bits of the second rows stay two bits up.
__host__ __device__ constexpr float ColumnUnit(Form form, int half) { return form == Form::kTwoBits && half == 1 ? 0.25f : 1; }

// Looks up entry `byte` of four digits. lane_table is the shared-memory address of the lane's copy.
template <int kByte>
__device__ __forceinline__ uint32_t LookUp(uint32_t lane_table, uint32_t digits) {
  uint32_t word;
  // A product of bytes takes the digit out and scales it in one instruction.
  const uint32_t address = __dp4a(digits, 128u << (8 * kByte), lane_table);
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(word) : "r"(address));
  return word;
}

// The same for digits of four bits.
template <int kNibble>
__device__ __forceinline__ uint32_t LookUpNibble(uint32_t lane_table, uint32_t digits) {
  uint32_t word;
  constexpr int kShift = 4 * kNibble - 7;
  const uint32_t offset = (kShift < 0 ? digits << -kShift : digits >> kShift) & 0x780u;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(word) : "r"(lane_table + offset));
  return word;
}

// The digits that a lane has in a panel.
template <Form kForm>
struct PanelCodes {
  uint32_t words[PanelVectors(kForm) * 4];
};

// What a step of a panel finds in the tables: words of the fine digits, and of the coarse ones where there are two levels. Word i is of
// row g + 8 (i % 2) and block i / 2. Of single columns digits, a byte each, in ColumnUnit.
template <Form kForm>
struct StepWords {
  uint32_t fine[4], coarse[kForm == Form::kTwoByte || kForm == Form::kNibbleByte ? 4 : 1];
};

// The digits that a lane has in a step of a block: bytes of two of its words are four coordinates of a group.
template <Form kForm>
__device__ __forceinline__ uint32_t BlockDigits(const PanelCodes<kForm>& codes, int block, int step) {
  const uint32_t first = codes.words[ColumnWord(kForm, 4 * block, step / 2)], second = codes.words[ColumnWord(kForm, 4 * block + 2, step / 2)];
  return __byte_perm(first, second, step % 2 == 0 ? 0x5410 : 0x7632);
}

template <Form kForm, int kStep>
__device__ __forceinline__ void TakeDigits(const PanelCodes<kForm>& codes, StepWords<kForm>& words) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    constexpr uint32_t kMask = kForm == Form::kTwoBits ? 0x03030303u : 0x0f0f0f0fu;
    const int half = i % 2, place = DigitPlace(kForm, half, kStep / 2), stay = kForm == Form::kTwoBits ? place % 4 : 0;
    words.fine[i] = BlockDigits(codes, i / 2, kStep) >> (place - stay) & kMask << stay;
  }
}

template <Form kForm, int kStep>
__device__ __forceinline__ void LookUpStep(const PanelCodes<kForm>& codes, uint32_t lane_table, StepWords<kForm>& words) {
  const auto look_up = [&](uint32_t digits, uint32_t (&to)[4]) {
    to[0] = LookUp<0>(lane_table, digits);
    to[1] = LookUp<1>(lane_table, digits);
    to[2] = LookUp<2>(lane_table, digits);
    to[3] = LookUp<3>(lane_table, digits);
  };
  if constexpr (IsColumns(kForm)) {
    TakeDigits<kForm, kStep>(codes, words);
  } else if constexpr (kForm == Form::kOneByte) {
    look_up(codes.words[kStep], words.fine);
  } else if constexpr (kForm == Form::kTwoByte) {
    look_up(codes.words[2 * kStep], words.fine);
    look_up(codes.words[2 * kStep + 1], words.coarse);
  } else {
    look_up(codes.words[kStep], words.coarse);
    const uint32_t fine = codes.words[8 + kStep / 2], fine_table = lane_table + 256 * 128;
    constexpr int kAt = 4 * (kStep % 2);
    words.fine[0] = LookUpNibble<kAt>(fine_table, fine);
    words.fine[1] = LookUpNibble<kAt + 1>(fine_table, fine);
    words.fine[2] = LookUpNibble<kAt + 2>(fine_table, fine);
    words.fine[3] = LookUpNibble<kAt + 3>(fine_table, fine);
  }
}

// The sum of both levels.
template <Form kForm>
__device__ __forceinline__ uint32_t SumOfLevels(const StepWords<kForm>& words, int i) {
  if constexpr (kForm == Form::kOneByte) return words.fine[i];
  if constexpr (kForm == Form::kTwoByte) return words.fine[i] + words.coarse[i] * kLevelRatio;
  return words.fine[i] + words.coarse[i];
}

// The same of a block alone, for rows g and g + 8.
template <Form kForm, int kStep, int kBlock>
__device__ __forceinline__ void LookUpBlock(const PanelCodes<kForm>& codes, uint32_t lane_table, uint32_t (&sums)[2]) {
  if constexpr (kForm == Form::kOneByte) {
    sums[0] = LookUp<2 * kBlock>(lane_table, codes.words[kStep]);
    sums[1] = LookUp<2 * kBlock + 1>(lane_table, codes.words[kStep]);
  } else if constexpr (kForm == Form::kTwoByte) {
    const uint32_t fine = codes.words[2 * kStep], coarse = codes.words[2 * kStep + 1];
    sums[0] = LookUp<2 * kBlock>(lane_table, fine) + LookUp<2 * kBlock>(lane_table, coarse) * kLevelRatio;
    sums[1] = LookUp<2 * kBlock + 1>(lane_table, fine) + LookUp<2 * kBlock + 1>(lane_table, coarse) * kLevelRatio;
  } else {
    const uint32_t fine = codes.words[8 + kStep / 2], coarse = codes.words[kStep], fine_table = lane_table + 256 * 128;
    constexpr int kAt = 4 * (kStep % 2) + 2 * kBlock;
    sums[0] = LookUpNibble<kAt>(fine_table, fine) + LookUp<2 * kBlock>(lane_table, coarse);
    sums[1] = LookUpNibble<kAt + 1>(fine_table, fine) + LookUp<2 * kBlock + 1>(lane_table, coarse);
  }
}

// The four registers of A in a step of a panel: weights as ByteView has them, of single columns the doubled gain times a digit, in
// ColumnUnit, from which the doubled gain times the centre is still to be taken. gains holds a byte per step of each row.
template <Form kForm, int kStep>
__device__ __forceinline__ void CombineStep(const StepWords<kForm>& words, const uint32_t gains[2][2], const ByteView& bytes, uint32_t a[4]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if constexpr (IsColumns(kForm)) {
      // Products of bytes take gains out where other units are idle.
      const uint32_t factor = __dp4a(gains[half][kStep / 4], 2u << (8 * (kStep % 4)), 0u);
#pragma unroll
      for (int i = half; i < 4; i += 2) a[i] = words.fine[i] * factor;
    } else {
      const uint32_t gain = __byte_perm(gains[half][kStep / 4], 0, 0x4440 | kStep % 4);
#pragma unroll
      for (int i = half; i < 4; i += 2) a[i] = SumOfLevels(words, i) * gain + bytes.base;
    }
  }
}

template <Form kForm, int kStep>
__device__ __forceinline__ void DecodeStep(const PanelCodes<kForm>& codes, uint32_t lane_table, const uint32_t gains[2][2],
                                           const ByteView& bytes, uint32_t a[4]) {
  StepWords<kForm> words;
  LookUpStep<kForm, kStep>(codes, lane_table, words);
  CombineStep<kForm, kStep>(words, gains, bytes, a);
}

// How much of the work is done, for measuring what each part costs: the weights fetched, decoded, multiplied.
enum Work { kFetch, kDecode, kMultiply };

// Calls use(step, a) for all steps of a panel, the step as a constant.
template <Form kForm, int kStep = 0, typename Use>
__device__ __forceinline__ void ForEachStep(const PanelCodes<kForm>& codes, uint32_t lane_table, const uint32_t gains[2][2],
                                            const ByteView& bytes, const Use& use) {
  if constexpr (kStep < kPanelSteps) {
    uint32_t a[4];
    DecodeStep<kForm, kStep>(codes, lane_table, gains, bytes, a);
    use(std::integral_constant<int, kStep>(), a);
    ForEachStep<kForm, kStep + 1>(codes, lane_table, gains, bytes, use);
  }
}

// The gains of a panel, a byte per step, of the rows g (first) and g + 8.
__device__ __forceinline__ void ExpandGains(uint32_t values, uint32_t packed, uint32_t gains[2][2]) {
  const uint32_t low = packed & 0x33333333u, high = packed >> 2 & 0x33333333u;
  gains[0][0] = __byte_perm(values, 0, low);
  gains[0][1] = __byte_perm(values, 0, low >> 16);
  gains[1][0] = __byte_perm(values, 0, high);
  gains[1][1] = __byte_perm(values, 0, high >> 16);
}

// A panel on its way to bytes of A, a step after the other.
template <Form kForm>
struct BytePanel {
  static constexpr int kProducts = kPanelSteps;

  const ByteView& bytes;
  uint32_t lane_table;
  PanelCodes<kForm> codes;
  uint32_t gains[2][2];

  __device__ __forceinline__ BytePanel(const PackedView& w, uint32_t table) : bytes(w.bytes), lane_table(table) {}

  template <typename Ring>
  __device__ __forceinline__ void Take(const Ring& ring) {
    ring.Take(bytes, codes, gains);
  }

  // Calls use(step, bytes) for all of them.
  template <typename Use>
  __device__ __forceinline__ void ForEach(const Use& use) const {
    ForEachStep<kForm>(codes, lane_table, gains, bytes, use);
  }

  // All that has been read.
  __device__ __forceinline__ uint32_t Fold() const {
    uint32_t all = gains[0][0] ^ gains[0][1] ^ gains[1][0] ^ gains[1][1];
#pragma unroll
    for (const uint32_t word : codes.words) all ^= word;
    return all;
  }
};

// D += A * B for unsigned bytes A [16, 32] and signed bytes B [32, 8].
__device__ __forceinline__ void MultiplyAdd(int d[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// D = A * B + C.
__device__ __forceinline__ void MultiplyAdd(int (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, const int (&c)[4]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]));
}

// D = A * B.
__device__ __forceinline__ void Multiply(int d[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(0));
}

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_LOOKUP_CUH_
