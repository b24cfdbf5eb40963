// Products against float64 on the decoded weights, for all codecs, odd shapes, both types and all batch sizes
// with a path of their own.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <thread>

#include "check.h"
#include "cpu/half.h"
#include "device.h"

namespace cosetq::test {
namespace {

struct Case {
  const Codec& codec;
  int64_t rows, cols;
  Options options;
  int rotation = 0;  // columns of a block, or 0 for none
  float last = 1;    // what the last column of the activations is larger by
  float spread = 1;  // what the activations of a row are larger by than those of the next, three rows in turn
  int shift = 0;     // how many numbers after a multiple of 16 bytes activations and results begin
  bool bytes = true;  // whether those hold the weights, of single columns
};

// The rotation by its definition: R = diag(s) * blockdiag(H) / sqrt(B), H[i, j] = -1 to the number of bits in common.
std::vector<double> Rotated(int block, const std::vector<uint8_t>& signs, size_t cols, const std::vector<double>& a) {
  std::vector<double> out(a.size(), 0.0);
  const double scale = 1 / std::sqrt(block);
  for (size_t i = 0; i < a.size(); ++i) {
    const size_t k = i % cols, first = i - k % static_cast<size_t>(block);
    const double x = ((signs[k / 8] >> (k % 8) & 1) != 0 ? -a[i] : a[i]) * scale;
    for (size_t j = 0; j < static_cast<size_t>(block); ++j) {
      const bool odd = __builtin_parityll((k % static_cast<size_t>(block)) & j) != 0;
      out[first + j] += odd ? -x : x;
    }
  }
  return out;
}

std::string Name(const Case& c) {
  return std::string(c.codec.name) + " " + std::to_string(c.rows) + "x" + std::to_string(c.cols) +
         (c.options.half ? " float16" : " float") + " " + std::to_string(c.options.gains.size()) + " gains";
}

bool Hopper() {
  int device = 0, major = 0;
  Must(cudaGetDevice(&device) == cudaSuccess, "cudaGetDevice");
  Must(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess, "cudaDeviceGetAttribute");
  return major == 9;
}

// Single columns that have a form of their own.
bool Columns(const Case& c) {
  return (c.codec.name == std::string("z1:16") || c.codec.name == std::string("z1:4")) && c.options.consecutive && c.options.centre_step == 0.5f && Hopper();
}

bool Packed(const Case& c) {
  const std::string name = c.codec.name;
  return c.options.gains.size() <= 4 && c.options.centre < 1024 && (name == "d4:4,4" || name == "d4:2,4" || name == "d4:4" || Columns(c));
}

// Whether bytes hold the weights of a sample, if they are single columns: gains are small, and the centre not far above the middle.
bool HasBytes(const Case& c, Sample& sample) {
  if (!Columns(c)) return true;
  const float gain = *std::max_element(c.options.gains.begin(), c.options.gains.end());
  const float entries = static_cast<float>(c.codec.entries), doubled = entries + 2 * sample.spec().centre[0] / sample.spec().level_weights[0];
  const float largest = gain * std::max(doubled, 2 * entries - 2 - doubled);
  return doubled >= 0 && doubled <= 16 && (entries == 4 ? gain <= 10 && largest <= 31 : gain <= 8 && largest <= 127);
}

// Whether activations are multiplied as the caller's float16 numbers; those that are rotated become floats.
bool Halves(const Case& c) { return c.options.half && c.rotation == 0; }

// Whether they lie as kernels want them that read rows as they come.
bool Aligned(const Case& c) { return c.cols % 64 == 0 && (c.rotation > 0 || c.shift * (c.options.half ? 2 : 4) % 16 == 0); }

// The path that a call must take. Where there is no cuBLAS the large path is not taken, and needs no workspace.
std::string PathOf(const Case& c, int64_t batch, int accuracy, int64_t workspace) {
  const int64_t tiles = (c.rows + 15) / 16, chunks = (c.cols + 255) / 256, panels = tiles * chunks;
  // Up to eight rows of floats, which the small path would make ready first, unless there are many panels, as in no case, and of float16 of
  // which warps of the small path would make chunk after chunk ready; no such case has more than two tiles for a processor.
  const bool many_chunks = chunks > 16 && (chunks % 16 != 0 || chunks > 32 || tiles > 132);
  const int few = panels < 1024 ? 16 : many_chunks || !Halves(c) ? 4 : 8;
  const int64_t most = !Columns(c) && panels < 2048 && c.cols <= 4096 ? 64 : 32;  // longer rows of more than 32 would not all fit
  if (Packed(c) && c.bytes && Hopper() && Aligned(c) && c.cols > 256 && batch > few && batch <= most) return "middle";
  if (Packed(c) && c.bytes && batch <= (accuracy == schema::kAccuracyFast || Columns(c) ? 16 : 32)) return "small";
  if (Packed(c) && Hopper()) return "wide";
  if (batch >= 48 && c.cols % 8 == 0 && workspace > (32 << 20)) return "large";
  return Packed(c) ? "small" : "general";
}

// How often a call must launch which kernels, or those of one of several names.
std::map<std::vector<std::string>, int64_t> LaunchesOf(const Case& c, int64_t batch, const std::string& path) {
  if (batch == 0) return {};
  // Which of the two depends on what fits shared memory.
  if (path == "middle") return {{{"middle", "direct"}, 1}};
  if (path == "wide") return {{{"wide", "divided", "lying"}, 1}};
  if (path != "small") return {{{path}, 1}};
  const int64_t chunks = (c.cols + 255) / 256, lanes_chunks = Columns(c) ? 16 : c.codec.name == std::string("d4:4") ? 32 : chunks;
  std::map<std::vector<std::string>, int64_t> launches;
  for (int64_t first = 0; first < batch; first += 16) {
    const int64_t rows = std::min<int64_t>(16, batch - first);
    // Floats are, up to four rows; more than eight rows where a warp has not many panels, as in no case.
    const int most = !Halves(c) ? 4 : Columns(c) ? 8 : 16;
    const bool lanes = Aligned(c) && rows <= most && (rows > 1 || chunks <= lanes_chunks);
    ++launches[{lanes ? "lanes" : "small"}];
  }
  return launches;
}

int64_t Calls(const std::vector<std::string>& names) {
  int64_t calls = 0;
  for (const std::string& name : names) calls += cosetq_cuda_calls(name.c_str());
  return calls;
}

// Whether activations are rounded to bytes.
bool InBytes(const Case& c, int64_t batch, int accuracy, const std::string& path) {
  return path == "wide" && accuracy == schema::kAccuracyFast && (!Columns(c) || (batch >= 256 && c.bytes));
}

// What results may be off by.
double Limit(const Case& c, int64_t batch, int accuracy, const std::string& path) {
  if (InBytes(c, batch, accuracy, path)) return c.cols == 1 ? 5e-2 : 1e-2;
  if (c.options.half) return 4e-4;
  if (path == "large") return 6e-4;
  if (Columns(c) && Packed(c)) return path == "small" ? 3e-5 : 4e-4;
  return path == "wide" ? 6e-4 : Packed(c) ? 1e-4 : 2e-6;
}

// The sum of products of so many numbers, as eight sums that do not wait for each other.
double Product(const double* x, const double* y, size_t count) {
  double sums[8] = {};
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (size_t k = 0; k < 8; ++k) sums[k] += x[i + k] * y[i + k];
  }
  for (; i < count; ++i) sums[0] += x[i] * y[i];
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

// Relative error of Y, measured by the norm that it would have without cancellation, every row of it alike. Threads take rows of the weight.
double Error(const std::vector<double>& weights, const Sample& sample, const Case& c, const std::vector<double>& a,
             const std::vector<double>& y) {
  const auto k = static_cast<size_t>(c.cols), n = static_cast<size_t>(c.rows), batch = a.size() / k;
  std::vector<double> norms(batch);
  for (size_t b = 0; b < batch; ++b) norms[b] = Product(&a[b * k], &a[b * k], k);
  const size_t count = std::max(std::thread::hardware_concurrency(), 1u);
  struct Of {
    std::vector<double> squares, norm;
  };
  std::vector<Of> parts(count, {std::vector<double>(batch), std::vector<double>(batch)});
  std::vector<std::thread> threads;
  for (size_t i = 0; i < count; ++i) {
    threads.emplace_back([&, i] {
      for (size_t row = n * i / count; row < n * (i + 1) / count; ++row) {
        const double *w = &weights[row * k], bias = sample.Bias(static_cast<int64_t>(row)), w2 = Product(w, w, k);
        for (size_t b = 0; b < batch; ++b) {
          const double e = y[b * n + row] - (Product(&a[b * k], w, k) + bias);
          parts[i].squares[b] += e * e;
          parts[i].norm[b] += norms[b] * w2 + bias * bias;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  double all = 0;
  for (size_t b = 0; b < batch; ++b) {
    double squares = 0, norm = 0;
    for (const Of& part : parts) squares += part.squares[b], norm += part.norm[b];
    all += squares / norm;
  }
  all = std::sqrt(all / static_cast<double>(batch));
  return std::isfinite(all) ? all : INFINITY;
}

// Numbers on the device between numbers that nobody may write.
template <typename T>
class Guarded {
 public:
  Guarded(size_t count, int shift) : all_(count + 2 * kGuard), first_(kGuard + static_cast<size_t>(shift)), count_(count), bytes_(all_ * sizeof(T)) {}
  void* get() const { return static_cast<T*>(bytes_.get()) + first_; }
  // False if others were written.
  bool Read(std::vector<T>* numbers) const {
    const std::vector<T> host = bytes_.Read<T>();
    const auto begin = host.begin() + static_cast<std::ptrdiff_t>(first_), end = begin + static_cast<std::ptrdiff_t>(count_);
    numbers->assign(begin, end);
    T poison;
    std::memset(&poison, 0xff, sizeof poison);
    const auto poisoned = [&](const T& x) { return std::memcmp(&x, &poison, sizeof x) == 0; };
    return std::all_of(host.begin(), begin, poisoned) && std::all_of(end, host.end(), poisoned);
  }

 private:
  static constexpr size_t kGuard = 64;
  size_t all_, first_, count_;
  DeviceBytes bytes_;
};

void Run(Case c, const std::vector<int64_t>& batches) {
  Sample sample(c.codec, c.rows, c.cols, c.options, 11);
  c.bytes = HasBytes(c, sample);
  const std::vector<double> weights = sample.Decode();
  std::vector<uint8_t> signs;
  if (c.rotation > 0) SetRotation(c.rotation, &signs, &sample.spec());
  const DeviceSample device(sample.spec());
  std::mt19937_64 random(5);
  std::normal_distribution<float> normal;
  for (const int64_t batch : batches) {
    const auto count = static_cast<size_t>(batch * c.cols), results = static_cast<size_t>(batch * c.rows);
    std::vector<uint16_t> half(static_cast<size_t>(c.shift), 0x7e00);  // NaN
    std::vector<float> single(half.size(), NAN);
    std::vector<double> a;
    for (size_t i = 0; i < count; ++i) {
      const bool last = static_cast<int64_t>(i) % c.cols == c.cols - 1;
      const auto row = static_cast<int>(static_cast<int64_t>(i) / c.cols % 3);
      const float x = normal(random) * (last ? c.last : 1);
      half.push_back(FloatToHalf(x));
      single.push_back(std::pow(c.spread, static_cast<float>(1 - row)) * (c.options.half ? HalfToFloat(half.back()) : x));
      a.push_back(single.back());
    }
    if (c.rotation > 0) a = Rotated(c.rotation, signs, static_cast<size_t>(c.cols), a);
    const size_t size = c.options.half ? 2 : 4;
    const DeviceBytes in = c.options.half ? DeviceBytes(half) : DeviceBytes(single);
    for (const int accuracy : {schema::kAccuracyAccurate, schema::kAccuracyFast}) {
      const Guarded<uint16_t> out16(c.options.half ? results : 0, c.shift);
      const Guarded<float> out32(c.options.half ? 0 : results, c.shift);
      cosetq_linear_call call = {};
      call.a = static_cast<unsigned char*>(in.get()) + static_cast<size_t>(c.shift) * size;
      call.y = c.options.half ? out16.get() : out32.get();
      call.batch = batch;
      call.type = c.options.half ? COSETQ_FLOAT16 : COSETQ_FLOAT;
      call.accuracy = accuracy;
      call.workspace_bytes = cosetq_cuda_linear_workspace(device.get(), batch, call.type, accuracy);
      const DeviceBytes workspace(static_cast<size_t>(call.workspace_bytes));
      call.workspace = workspace.get();
      const std::string path = PathOf(c, batch, accuracy, call.workspace_bytes);
      auto launches = LaunchesOf(c, batch, path);
      for (auto& [names, count] : launches) count += Calls(names);
      Must(cosetq_cuda_linear(device.get(), &call, nullptr) == 0, "cosetq_cuda_linear");
      const std::string what = Name(c) + " batch " + std::to_string(batch) + " accuracy " + std::to_string(accuracy) + ": ";
      for (const auto& [names, count] : launches) Check(Calls(names) == count, what + "other kernels than " + names[0] + " were launched");
      std::vector<uint16_t> y16;
      std::vector<float> y32;
      Check(out16.Read(&y16) && out32.Read(&y32), what + "something beside the results was written");
      std::vector<double> y(y32.begin(), y32.end());
      for (const uint16_t x : y16) y.push_back(HalfToFloat(x));
      if (batch == 0) continue;
      const double error = Error(weights, sample, c, a, y);
      // A row's error is spread over its columns.
      Check(!InBytes(c, batch, accuracy, path) || c.cols < 64 || error * std::sqrt(static_cast<double>(c.cols)) > 2e-3,
            what + "activations were not rounded to bytes");
      Check(error < Limit(c, batch, accuracy, path), what + "error " + std::to_string(error * 1e6) + "e-6");
    }
  }
}

void NotFinite(const Codec& codec, bool half, int64_t batch) {
  const int64_t rows = 40, cols = 512;
  Options options;
  options.half = half;
  options.consecutive = codec.dim == 1;
  options.centre_step = codec.dim == 1 ? 0.5f : 0;
  Sample sample(codec, rows, cols, options, 1);
  const DeviceSample device(sample.spec());
  std::vector<float> single(static_cast<size_t>(batch * cols), 0.25f);
  for (int64_t row = 1; row < batch; row += 2) single[static_cast<size_t>(row * cols + (row % 4 == 1 ? 3 : 300))] = row % 4 == 1 ? NAN : INFINITY;
  std::vector<uint16_t> halves;
  for (const float x : single) halves.push_back(FloatToHalf(x));
  const DeviceBytes in = half ? DeviceBytes(halves) : DeviceBytes(single), out(static_cast<size_t>(batch * rows) * (half ? 2 : 4));
  cosetq_linear_call call = {};
  call.a = in.get();
  call.y = out.get();
  call.batch = batch;
  call.type = half ? COSETQ_FLOAT16 : COSETQ_FLOAT;
  call.accuracy = schema::kAccuracyAccurate;
  call.workspace_bytes = cosetq_cuda_linear_workspace(device.get(), batch, call.type, call.accuracy);
  const DeviceBytes workspace(static_cast<size_t>(call.workspace_bytes));
  call.workspace = workspace.get();
  Must(cosetq_cuda_linear(device.get(), &call, nullptr) == 0, "cosetq_cuda_linear");
  std::vector<float> y;
  if (half) {
    for (const uint16_t x : out.Read<uint16_t>()) y.push_back(HalfToFloat(x));
  } else {
    y = out.Read<float>();
  }
  bool as_wanted = true;
  for (int64_t i = 0; i < batch * rows; ++i) as_wanted &= std::isfinite(y[static_cast<size_t>(i)]) == (i / rows % 2 == 0);
  Check(as_wanted, std::string("rows with NaN and infinity give such results, others do not, ") + (half ? "float16 " : "float ") +
                       std::to_string(batch) + " " + codec.name);
}

}  // namespace

void TestCudaLinear(bool brief) {
  for (const Codec& codec : Codecs()) {
    for (const bool half : {false, true}) {
      Options options;
      options.half = half;
      options.gains = {3, 4, 5, 6};
      Run({codec, 200, 192, options}, {0, 1, 3, 4, 5, 8, 9, 16, 17, 32, 33, 150});
      if (brief) continue;
      Run({codec, 1, 1, options}, {1, 17});
      Run({codec, 65, 100, options}, {1, 7});
      Run({codec, 50, 63, options}, {2, 16});
      options.direct_scales = true;
      options.bias = false;
      Run({codec, 1000, 2100, options}, {1, 8, 16});
      options.gains = {1.5f};
      Run({codec, 130, 700, options}, {1, 33});
      options.gains = {2, 6};
      Run({codec, 130, 700, options}, {3});
      options.gains.assign(16, 1);
      for (size_t i = 0; i < 16; ++i) options.gains[i] = static_cast<float>(i + 1);
      Run({codec, 130, 700, options}, {3});
    }
  }
  Options options;
  options.gains = {3, 4, 5, 6};
  // Rotated activations, which a kernel turns to floats, or the one that makes many rows ready: of whole vectors or not, in blocks within a lane's
  // columns, a warp's or none, from anywhere, and longer than a block has room for.
  for (const bool half : {true, false}) {
    options.half = half;
    for (const char* codec : {"d4:4,4", "d4:4", "e8:2,2"}) {
      Run({CodecNamed(codec), 100, 1536, options, 256}, {1, 3, 9, 17, 64, 200});
      Run({CodecNamed(codec), 70, 256, options, 256}, {1100});
      Run({CodecNamed(codec), 100, 48, options, 16}, {3, 70});
      Run({CodecNamed(codec), 100, 48, options, 1}, {3});
      Run({CodecNamed(codec), 100, 324, options, 4}, {2, 80});
      if (brief) continue;
      Run({CodecNamed(codec), 100, 1536, options, 32, 1, 1, 1}, {1, 12, 130});
      Run({CodecNamed(codec), 2100, 2048, options, 128}, {1, 6, 20, 40});
      Run({CodecNamed(codec), 20, 59392, options, 256}, {2, 40});
    }
  }
  options.half = false;
  // Clusters of blocks that share the columns: less than a band of rows and some that end within one, chunks that blocks share evenly or not.
  for (const bool half : {true, false}) {
    options.half = half;
    for (const char* codec : {"d4:4,4", "d4:2,4", "d4:4"}) {
      Run({CodecNamed(codec), 77, 576, options}, {32, 64});
      Run({CodecNamed(codec), 1001, 4160, options}, {9});
      if (brief) continue;
      Run({CodecNamed(codec), 1, 320, options}, {17});
      Run({CodecNamed(codec), 1001, 2112, options}, {33, 50});
      Run({CodecNamed(codec), 400, 4096, options}, {64, 65});
      Run({CodecNamed(codec), 5000, 576, options}, {40});
      Run({CodecNamed(codec), 1001, 4160, options}, {4, 5, 8, 16, 17});
      Run({CodecNamed(codec), 2200, 8192, options}, {4, 5});
      Run({CodecNamed(codec), 600, 8192, options, 0, 1000}, {16, 32});
      // So many that they are taken in several passes, and so many columns that rows are.
      Run({CodecNamed(codec), 16000, 832, options}, {16, 32});
      Run({CodecNamed(codec), 300, 16384, options}, {16, 32});
    }
  }
  // Divided tiles, of all widths and splits, of rows as they lie or made ready: chunks that warp groups share evenly or not, with slices of
  // corrections or without.
  for (const bool half : {true, false}) {
    options.half = half;
    for (const char* codec : {"d4:4,4", "d4:2,4", "d4:4"}) {
      Run({CodecNamed(codec), 1000, 2300, options}, {70, 130});
      Run({CodecNamed(codec), 1000, 2112, options}, {66, 130});
      if (brief) continue;
      Run({CodecNamed(codec), 4000, 1536, options}, {65, 100, 128, 250});
      Run({CodecNamed(codec), 1000, 4096, options}, {120, 500});
      Run({CodecNamed(codec), 8000, 576, options}, {90});
      Run({CodecNamed(codec), 20000, 576, options}, {70});
      if (half) Run({CodecNamed(codec), 1000, 2112, options, 0, 1, 1, 1}, {66, 130});  // from anywhere
      Run({CodecNamed(codec), 8000, 600, options}, {90});
      Run({CodecNamed(codec), 100, 520, options}, {66, 129});
    }
  }
  for (const char* name : {"middle", "direct", "wide", "divided", "lying"}) Check(brief || !Hopper() || cosetq_cuda_calls(name) > 0, std::string("some case is multiplied by ") + name);
  options.half = false;
  if (brief) return;
  // Wide and long enough for every split of the work, and one with many tiles for each block.
  Run({CodecNamed("d4:4,4"), 5000, 1100, options}, {1, 8, 16});
  Run({CodecNamed("d4:2,4"), 300, 9000, options}, {1, 8, 16});
  Run({CodecNamed("d4:4"), 40000, 300, options}, {1, 16});
  Run({CodecNamed("d4:4,4"), 13000, 4000, options}, {1, 5});
  // A row too long to be kept in shared memory.
  Run({CodecNamed("d4:4,4"), 40, 17000, options}, {1});
  // Several chunks for a warp, and a peak in the last of them.
  for (const bool half : {false, true}) {
    options.half = half;
    for (const char* codec : {"d4:4,4", "d4:2,4", "d4:4"}) {
      Run({CodecNamed(codec), 300, 8192, options, 0, 1000}, {1, 4, 7, 16});
      Run({CodecNamed(codec), 160, 14336, options}, {2, 3, 8});
      Run({CodecNamed(codec), 320, 14336, options}, {4, 5, 8});
    }
  }
  options.half = false;
  // A centre that no integer holds.
  options.centre = 0x1p33f;
  for (const char* codec : {"d4:4,4", "d4:2,4", "d4:4"}) Run({CodecNamed(codec), 64, 256, options}, {1, 20});
  options.centre = 0.5f;
  // Several tiles of rows and of columns, the last ones not full, and chunks that fill no slice of corrections.
  for (const char* codec : {"d4:4,4", "d4:2,4", "d4:4"}) Run({CodecNamed(codec), 700, 1400, options}, {17, 33, 128, 300});
  // Just more tiles than a GPU has processors, and long enough for them to be cut.
  Run({CodecNamed("d4:4,4"), 17000, 2048, options}, {40});
}

namespace {

void TestColumns(const Codec& codec, bool brief) {
  std::vector<int64_t> all = {64, 128, 300, 512};
  for (int64_t batch = 0; batch <= 40; ++batch) all.push_back(batch);
  for (const bool half : {true, false}) {
    Options options;
    options.half = half;
    options.consecutive = true;
    options.centre_step = 0.5f;
    options.gains = {3, 4, 5, 6};
    for (const float centre : {0.2f, 2.0f}) {
      options.centre = centre;
      Run({codec, 200, 192, options}, brief || centre > 1 ? std::vector<int64_t>{1, 8, 9, 16, 17, 40, 300} : all);
    }
    options.centre = 0.5f;
    Run({codec, 100, 1536, options, 256}, {1, 9, 17, 64, 300});
    Run({codec, 70, 256, options, 256}, {1100});
    Run({codec, 20, 59392, options, 256}, {40});
    Run({codec, 33, 300, options}, {3, 16, 65});
    if (brief) continue;
    for (const std::vector<float>& gains : {std::vector<float>{1.5f}, {2, 6}, {8, 1, 5, 3}, {0, 16, 1, 7}}) {
      options.gains = gains;
      Run({codec, 300, 320, options}, {1, 7, 12, 17, 150});
    }
    options.gains = {3, 4, 5, 6};
    // Rows and columns that fill no panel, no vector or no tile.
    Run({codec, 1, 1, options}, {1, 17});
    Run({codec, 65, 100, options}, {1, 7, 13, 33});
    Run({codec, 50, 63, options}, {2, 16, 20, 260});
    Run({codec, 130, 520, options}, {1, 8, 15, 100});
    Run({codec, 257, 576, options}, {4, 16, 31, 257});
    // Activations and results that begin anywhere.
    for (const int shift : {1, 2, 4}) Run({codec, 120, 512, options, 0, 1, 1, shift}, {1, 5, 16, 24, 130});
    Run({codec, 300, 8192, options, 0, 1000}, {1, 4, 7, 16, 64});
    Run({codec, 160, 14336, options}, {2, 3, 8});
    Run({codec, 320, 14336, options}, {4, 5, 8});
    Run({codec, 1001, 4160, options}, {4, 5, 8});
    // Two blocks that fetch together, and tiles of which the last rows and columns are not all there.
    if (half) Run({codec, 4090, 1024, options}, {1000});
    options.direct_scales = true;
    options.bias = false;
    Run({codec, 1000, 2100, options}, {1, 8, 16, 48});
    Run({codec, 2304, 4096, options}, {1, 16, 40});
    Run({codec, 9000, 320, options}, {1, 11, 70});
    // Many tiles for a block, of each of which some warps have nothing.
    Run({codec, 40000, 300, options}, {1, 16});
    Run({codec, 40, 17000, options, 0, 1000}, {1, 16, 18});
    // Rows that float16 alone has no numbers for.
    if (!half) Run({codec, 64, 256, options, 0, 1, 1e15f}, {3, 16, 48});
    // Forms that are none of their own: a centre anywhere, codewords that are not in a row, many gains.
    options.centre_step = 0;
    Run({codec, 64, 256, options}, {3});
    options.consecutive = false;
    options.centre_step = 0.5f;
    Run({codec, 64, 256, options}, {3});
  }
}

}  // namespace

// Weights of single columns, as ever so many rows of them are multiplied.
void TestCudaColumns(bool brief) {
  for (const char* codec : {"z1:16", "z1:4"}) TestColumns(CodecNamed(codec), brief);
}

// NaN and infinity in a row of activations leave the other rows alone.
void TestCudaNotFinite() {
  for (const char* codec : {"d4:4,4", "z1:16", "z1:4"}) {
    for (const auto& [half, batch] : {std::pair<bool, int64_t>{false, 2}, {false, 4}, {false, 5}, {false, 20}, {true, 2}, {true, 5}, {true, 20}}) NotFinite(CodecNamed(codec), half, batch);
  }
}

void TestCudaErrors() {
  Options options;
  Sample sample(CodecNamed("d4:4,4"), 64, 64, options, 1);
  cosetq_linear_node node = Node(sample.spec());
  cosetq_cuda_weight* weight = nullptr;
  node.codes.shape[1] = 7;
  Check(cosetq_cuda_weight_create(&node, &weight) == -1 &&
            std::string(cosetq_cuda_error()).find("codes") != std::string::npos,
        "a node with a wrong shape is refused by name");
  std::vector<uint8_t> signs;
  SetRotation(64, &signs, &sample.spec());
  const DeviceSample device(sample.spec());
  cosetq_linear_call call = {};
  call.batch = 1;
  call.type = COSETQ_FLOAT;
  Check(cosetq_cuda_linear(device.get(), &call, nullptr) == -1 &&
            std::string(cosetq_cuda_error()).find("workspace") != std::string::npos,
        "a call without workspace is refused");
  call.type = 3;
  Check(cosetq_cuda_linear(device.get(), &call, nullptr) == -1, "an unknown type is refused");
}

}  // namespace cosetq::test
