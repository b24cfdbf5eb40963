// Variants of the kernels for few rows: checked against float64 and timed over weights that rotate through more memory than the
// cache holds, in a CUDA graph.

#ifndef COSETQ_CUDA_BENCH_VARIANTS_CUH_
#define COSETQ_CUDA_BENCH_VARIANTS_CUH_

#include <cuda_fp16.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <random>
#include <vector>

#include "memory.h"
#include "middle.cuh"
#include "row_lanes.cuh"
#include "small_bytes.cuh"
#include "small_lanes.cuh"
#include "workbench.h"

namespace cosetq::cuda {
namespace {

// A packed weight of random bytes. Copies share the tables.
struct Bench {
  PackedView view = {};
  Buffer<unsigned char> panels;
  std::vector<unsigned char> host;
  std::vector<uint32_t> fine_words, coarse_words;
  Buffer<uint32_t> fine, coarse;
  Buffer<float> scales;
  double centre[kGroup];
  int copies;
  size_t bytes;

  Bench(Form form, int rows, int cols) {
    std::mt19937 random(1);
    view.form = form;
    view.rows = rows;
    view.cols = cols;
    view.groups = (cols + 7) / 8;
    view.tiles = (rows + 15) / 16;
    view.chunks = (view.groups + 31) / 32;
    view.shares = std::min(view.tiles, CurrentDevice().processors);
    view.by_tiles = Divisor(view.tiles);
    view.by_shares = Divisor(view.shares);
    bytes = static_cast<size_t>(view.tiles) * static_cast<size_t>(view.chunks) * static_cast<size_t>(PanelBytes(form));
    copies = static_cast<int>(400e6 / static_cast<double>(bytes)) + 2;
    host.resize(bytes);
    for (size_t i = 0; i + 4 <= bytes; i += 4) *reinterpret_cast<uint32_t*>(&host[i]) = static_cast<uint32_t>(random());
    panels = Buffer<unsigned char>(bytes * static_cast<size_t>(copies));
    for (int i = 0; i < copies; ++i)
      Check(cudaMemcpy(panels.get() + static_cast<size_t>(i) * bytes, host.data(), bytes, cudaMemcpyHostToDevice), "copy");
    const auto words = [&](int count, uint32_t modulus) {
      std::vector<uint32_t> v;
      for (int i = 0; i < count; ++i) {
        uint32_t word = 0;
        for (int j = 0; j < 4; ++j) word |= static_cast<uint32_t>(random() % modulus) << (8 * j);
        v.push_back(word);
      }
      return v;
    };
    // Coordinates of 0 and up, whose sum has a middle that the centre takes off.
    fine_words = words(FineDigits(form), form == Form::kNibbleByte ? 4 : 8);
    if (form == Form::kNibbleByte) coarse_words = words(256, 16);
    std::vector<uint32_t> fine_bytes = fine_words;
    const uint32_t middle = form == Form::kTwoByte ? 20 : form == Form::kNibbleByte ? 10 : 5;
    for (uint32_t& word : fine_bytes) word -= 0x01010101u * (form == Form::kTwoByte ? middle / 5 : middle);
    fine = Buffer<uint32_t>(fine_bytes);
    view.bytes.fine = fine.get();
    if (form == Form::kNibbleByte) {
      coarse = Buffer<uint32_t>(coarse_words);
      view.bytes.coarse = coarse.get();
    }
    view.bytes.gains = 0x06050403;
    view.bytes.base = 0x78787878;
    view.bytes.bits = 8;
    for (int j = 0; j < kGroup; ++j) {
      view.bytes.rest[j] = 0.2f - 0.06f * static_cast<float>(j % 4);
      centre[j] = static_cast<double>(middle) + static_cast<double>(view.bytes.rest[j]);
    }
    std::vector<float> s;
    for (int i = 0; i < view.tiles * 16; ++i) s.push_back(1e-2f * static_cast<float>(1 + random() % 7));
    scales = Buffer<float>(s);
    view.scales = scales.get();
  }

  PackedView Copy(int i) const {
    PackedView v = view;
    v.panels = panels.get() + static_cast<size_t>(i % copies) * bytes;
    return v;
  }

  // The weight of a row and column without the row's scale.
  double Weight(int row, int col) const {
    const int group = col % view.groups, j = col / view.groups;
    const int step = group % kPanelSteps, lane = row % 8 * 4 + group % kPanelGroups / kPanelSteps, half = row % 16 / 8, block = j / 4;
    const unsigned char* panel = &host[static_cast<size_t>(TilePanels(view, row / 16)[group / 32] - view.panels)];
    const auto word = [&](int i) { return reinterpret_cast<const uint32_t*>(panel)[(i / 4 * 32 + lane) * 4 + i % 4]; };
    const int place = 2 * block + half;
    const auto byte = [&](uint32_t w, int i) { return w >> (8 * i) & 255; };
    const auto coordinate = [&](uint32_t w) { return static_cast<int>(byte(w, j % 4)); };
    int v;
    if (view.form == Form::kOneByte) {
      v = coordinate(fine_words[byte(word(step), place)]);
    } else if (view.form == Form::kTwoByte) {
      v = coordinate(fine_words[byte(word(2 * step), place)]) + 4 * coordinate(fine_words[byte(word(2 * step + 1), place)]);
    } else {
      v = coordinate(coarse_words[byte(word(step), place)]) +
          coordinate(fine_words[word(8 + step / 2) >> (16 * (step % 2) + 4 * place) & 15]);
    }
    const uint32_t packed = reinterpret_cast<const uint32_t*>(panel + PanelVectors(view.form) * 512)[lane];
    const double gain = byte(view.bytes.gains, static_cast<int>(packed >> (4 * step + 2 * half) & 3));
    return gain * (v - centre[j]);
  }
};

// Median time of a call in microseconds, over graphs of calls with rotating weights.
double Time(int copies, const std::function<void(int, cudaStream_t)>& call) {
  cudaStream_t stream;
  Check(cudaStreamCreate(&stream), "stream");
  const int calls = std::max(20, copies);
  for (int i = 0; i < 3; ++i) call(i, stream);
  Check(cudaStreamSynchronize(stream), "run");
  cudaGraph_t graph;
  cudaGraphExec_t ready;
  Check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  for (int i = 0; i < calls; ++i) call(i, stream);
  Check(cudaStreamEndCapture(stream, &graph), "capture");
  Check(cudaGraphInstantiate(&ready, graph, 0), "instantiate");
  cudaEvent_t begin, end;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  std::vector<float> times;
  for (int i = 0; i < 23; ++i) {
    cudaEventRecord(begin, stream);
    Check(cudaGraphLaunch(ready, stream), "launch");
    cudaEventRecord(end, stream);
    Check(cudaEventSynchronize(end), "run");
    float ms;
    cudaEventElapsedTime(&ms, begin, end);
    if (i >= 3) times.push_back(ms * 1e3f / static_cast<float>(calls));
  }
  std::sort(times.begin(), times.end());
  cudaGraphExecDestroy(ready);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
  return static_cast<double>(times[times.size() / 2]);
}

// Checks and times launch(work, weight, in, out, stream), with float16 activations and results. With parts it also prints what it
// takes to fetch the weights, and to decode them too.
template <typename Launch>
void Variant(int number, const Bench& bench, int batch, bool parts, const Launch& launch) {
  const PackedView& w = bench.view;
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<__half> a, y(static_cast<size_t>(batch) * static_cast<size_t>(w.rows));
  for (int64_t i = 0; i < static_cast<int64_t>(batch) * w.cols; ++i) a.push_back(__float2half(normal(random)));
  const Buffer<__half> in(a), out(y.size());
  Check(cudaMemset(out.get(), 0xff, out.bytes()), "poison");
  std::printf("%2d  ", number);
  const std::integral_constant<Work, kMultiply> whole;
  if (!launch(whole, bench.Copy(0), in.get(), out.get(), nullptr)) {
    std::printf("does not fit\n");
    return;
  }
  Check(cudaMemcpy(y.data(), out.get(), out.bytes(), cudaMemcpyDeviceToHost), "read");
  std::vector<float> scales(static_cast<size_t>(w.rows));
  Check(cudaMemcpy(scales.data(), w.scales, scales.size() * 4, cudaMemcpyDeviceToHost), "read");
  double squares = std::any_of(y.begin(), y.end(), [](__half x) { return std::isnan(__half2float(x)); }) ? INFINITY : 0, norm = 0;
  for (int i = 0; i < 64; ++i) {
    const int row = static_cast<int>(random() % static_cast<unsigned>(w.rows)), b = i % batch;
    double sum = 0;
    for (int c = 0; c < w.cols; ++c)
      sum += bench.Weight(row, c) * static_cast<double>(__half2float(a[static_cast<size_t>(b) * static_cast<size_t>(w.cols) + static_cast<size_t>(c)]));
    sum *= static_cast<double>(scales[static_cast<size_t>(row)]);
    const double e = static_cast<double>(__half2float(y[static_cast<size_t>(b) * static_cast<size_t>(w.rows) + static_cast<size_t>(row)])) - sum;
    squares += e * e;
    norm += sum * sum;
  }
  const auto time = [&](auto work) {
    return Time(bench.copies, [&](int i, cudaStream_t stream) { launch(work, bench.Copy(i), in.get(), out.get(), stream); });
  };
  const double all = time(whole);
  std::printf("%6.2f us  %5.2f TB/s  error %.1e", all, static_cast<double>(bench.bytes) / all * 1e-6, std::sqrt(squares / norm));
  if (parts)
    std::printf("  of it: fetch %.2f, + decode %.2f", time(std::integral_constant<Work, kFetch>()), time(std::integral_constant<Work, kDecode>()));
  std::printf("\n");
  std::fflush(stdout);
}

template <Form kForm, int kRoom, bool kOwn, int kWarps, int kDepth, int kEarly, bool kParts = false, bool kPaced = false>
void BytesVariant(int number, const Bench& bench, int batch) {
  const Buffer<unsigned char> workspace(Prepared::Bytes(bench.view, batch));
  Check(cudaMemset(workspace.get(), 0xff, workspace.bytes()), "poison");
  std::printf("bytes  room %2d %s warps %2d depth %d early %d %s  ", kRoom, kOwn ? "own" : "   ", kWarps, kDepth, kEarly, kPaced ? "pace " : "     ");
  Variant(number, bench, batch, kParts, [&](auto work, const PackedView& w, const __half* a, __half* y, cudaStream_t stream) {
    if constexpr (kParts || decltype(work)::value == kMultiply) {
      return LaunchSmallBytes<kForm, kRoom, kOwn, kWarps, kDepth, kEarly, kPaced || (kOwn && kEarly == kDepth), kPaced, decltype(work)::value>(w, a, batch, workspace.get(), y, true, stream);
    } else {
      return false;
    }
  });
}

template <Form kForm, typename Operands, typename Plan, bool kParts = false>
void LanesVariant(int number, const char* name, const Bench& bench, int batch) {
  std::printf("%s %2d %s depth %2d early %d %s ", name, Operands::kRows, Plan::kEngine ? "engine" : "lanes ", Plan::kDepth, Plan::kEarly,
              Plan::kFirst == kAhead ? "ahead" : Plan::kFirst == kInPace ? "pace " : Plan::kFirst == kAlong ? "along" : "     ");
  Variant(number, bench, batch, kParts, [&](auto work, const PackedView& w, const __half* a, __half* y, cudaStream_t stream) {
    if constexpr (kParts || decltype(work)::value == kMultiply) {
      return LaunchSmallLanes<kForm, Operands, Plan, decltype(work)::value>(w, a, batch, y, true, stream);
    } else {
      return false;
    }
  });
}

template <Form kForm, int kRows, bool kDirect = false>
void MiddleVariants(const Bench& bench, int batch) {
  for (const int splits : {2, 4, 8}) {
    MiddleCut cut;
    const bool fits = CutMiddle<kForm, kRows, kDirect>(bench.view, splits, MostClusters<kForm, kRows, __half, kDirect>(std::array<int, 1>{splits})[0], &cut);
    std::printf("middle rows %2d splits %d %s            ", kRows, splits, kDirect ? "direct" : "staged");
    Variant(kDirect ? 32 : 31, bench, batch, false, [&](auto, const PackedView& w, const __half* a, __half* y, cudaStream_t stream) {
      if (fits) LaunchMiddle<kForm, kRows, __half, kDirect>(w, a, batch, y, true, cut, stream);
      return fits;
    });
  }
  if constexpr (!kDirect && !IsColumns(kForm)) MiddleVariants<kForm, kRows, true>(bench, batch);
}

template <Form kForm, int kRoom, bool kOwn>
void BytesVariants(const Bench& bench, int batch) {
  constexpr int kUnit = kForm == Form::kOneByte ? 2 : 1, kWarps = kRoom == 16 ? 12 : 16;
  BytesVariant<kForm, kRoom, kOwn, kWarps, kUnit, kUnit, true>(1, bench, batch);
  BytesVariant<kForm, kRoom, kOwn, kWarps, 2 * kUnit, kUnit>(2, bench, batch);
  BytesVariant<kForm, kRoom, kOwn, kWarps, 2 * kUnit, 2 * kUnit>(3, bench, batch);
  BytesVariant<kForm, kRoom, kOwn, kWarps, 3 * kUnit, 2 * kUnit>(4, bench, batch);
  if constexpr (kOwn) BytesVariant<kForm, kRoom, kOwn, kWarps, 3, 1, false, true>(5, bench, batch);
}

template <Form kForm, typename Operands>
void LanesVariants(int number, const char* name, const Bench& bench, int batch) {
  constexpr int kUnit = kForm == Form::kOneByte ? 2 : 1;
  LanesVariant<kForm, Operands, Plan<false, kUnit, kUnit, Operands::kRows <= 8 ? kAhead : kInTurn>>(number, name, bench, batch);
  LanesVariant<kForm, Operands, Plan<false, 2 * kUnit, kUnit>>(number + 1, name, bench, batch);
  LanesVariant<kForm, Operands, Plan<true, 2 * kUnit, kUnit>, true>(number + 2, name, bench, batch);
  LanesVariant<kForm, Operands, Plan<true, 3, 1, kInPace>>(number + 3, name, bench, batch);
  if constexpr (Operands::kRows <= 8) LanesVariant<kForm, Operands, Plan<true, kUnit + 1, 1, kAlong>>(number + 4, name, bench, batch);
}

template <Form kForm>
void RunVariantsOf(const char* name, int rows, int cols, int batch) {
  const Bench bench(kForm, rows, cols);
  std::printf("%s N=%d K=%d batch %d, %.1f MB\n", name, rows, cols, batch, static_cast<double>(bench.bytes) * 1e-6);
  if (batch > 8 && CurrentDevice().hopper) batch <= 16 ? MiddleVariants<kForm, 16>(bench, batch) : MiddleVariants<kForm, 32>(bench, batch);
  if (batch > 16) return;
  const bool own = OwnActivations<__half>(batch, cols);
  switch (SmallRoom(batch, own)) {
    case 1:
      BytesVariants<kForm, 1, true>(bench, batch);
      break;
    case 4:
      own ? BytesVariants<kForm, 4, true>(bench, batch) : BytesVariants<kForm, 4, false>(bench, batch);
      break;
    case 8:
      BytesVariants<kForm, 8, false>(bench, batch);
      break;
    default:
      BytesVariants<kForm, 16, false>(bench, batch);
  }
  if (batch == 1) LanesVariants<kForm, RowLanes<kForm, 1, __half>>(6, "bytes by lanes", bench, batch);
  if (batch <= 2) LanesVariants<kForm, RowLanes<kForm, 2, __half>>(11, "bytes by lanes", bench, batch);
  if (batch <= 4) LanesVariants<kForm, ByteLanes<kForm, 4, __half>>(16, "bytes by lanes", bench, batch);
  if (batch <= 8) LanesVariants<kForm, ByteLanes<kForm, 8, __half>>(21, "bytes by lanes", bench, batch);
  batch <= 8 ? LanesVariants<kForm, HalfOperands<kForm, 8>>(26, "float16", bench, batch)
             : LanesVariants<kForm, HalfOperands<kForm, 16>>(26, "float16", bench, batch);
}

}  // namespace
}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_BENCH_VARIANTS_CUH_
