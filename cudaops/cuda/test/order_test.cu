// Calls in one stream, which overlap where the device lets them: results are those of calls that wait for each other.

#include <algorithm>
#include <random>
#include <string>

#include "check.h"
#include "cpu/half.h"
#include "device.h"

namespace cosetq::test {
namespace {

constexpr int64_t kWide = 3072, kNarrow = 1000;

class Stream {
 public:
  Stream() { Must(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking) == cudaSuccess, "cudaStreamCreate"); }
  Stream(const Stream&) = delete;
  ~Stream() { cudaStreamDestroy(stream_); }
  cudaStream_t get() const { return stream_; }
  void Wait() const { Must(cudaStreamSynchronize(stream_) == cudaSuccess, "cudaStreamSynchronize"); }

 private:
  cudaStream_t stream_ = nullptr;
};

// What a call of one weight reads, writes and works in; the next call's may be the same memory.
void Multiply(const DeviceSample& weight, const void* a, void* y, int64_t batch, int32_t type, int accuracy, const DeviceBytes& workspace,
              const Stream& stream) {
  cosetq_linear_call call = {};
  call.a = a;
  call.y = y;
  call.batch = batch;
  call.type = type;
  call.accuracy = accuracy;
  call.workspace = workspace.get();
  call.workspace_bytes = static_cast<int64_t>(workspace.bytes());
  Must(cosetq_cuda_linear(weight.get(), &call, stream.get()) == 0, "cosetq_cuda_linear");
}

template <typename T>
std::vector<T> Normal(size_t count) {
  std::mt19937_64 random(3);
  std::normal_distribution<float> normal(0, 0x1p-8f);
  std::vector<T> out(count);
  for (T& x : out) {
    if constexpr (sizeof(T) == 2) x = FloatToHalf(normal(random));
    if constexpr (sizeof(T) == 4) x = normal(random);
  }
  return out;
}

// Layers of which each reads what the one before it writes, back and forth between two buffers, in one workspace, where rotated activations
// are those of the one before until it has ended.
template <typename T, typename Bits>
void Layers(const Codec& codec, const std::vector<int64_t>& batches, bool rotated = false) {
  Options options;
  options.half = sizeof(T) == 2;
  options.gains = {3, 4, 5, 6};
  options.consecutive = codec.dim == 1;
  options.centre_step = codec.dim == 1 ? 0.5f : 0;
  options.bias = false;
  Sample up(codec, kWide, kNarrow, options, 7), down(codec, kNarrow, kWide, options, 8);
  std::vector<uint8_t> signs[2];
  if (rotated) {
    SetRotation(8, &signs[0], &up.spec());
    SetRotation(256, &signs[1], &down.spec());
  }
  const DeviceSample weights[2] = {DeviceSample(up.spec()), DeviceSample(down.spec())};
  const int32_t type = options.half ? COSETQ_FLOAT16 : COSETQ_FLOAT;
  const Stream stream;
  for (const int64_t batch : batches) {
    const std::vector<T> x = Normal<T>(static_cast<size_t>(batch * kNarrow));
    for (const int accuracy : {schema::kAccuracyAccurate, schema::kAccuracyFast}) {
      int64_t bytes = 0;
      for (const DeviceSample& weight : weights) bytes = std::max(bytes, cosetq_cuda_linear_workspace(weight.get(), batch, type, accuracy));
      const DeviceBytes workspace(static_cast<size_t>(bytes));
      const auto run = [&](bool wait) {
        const DeviceBytes narrow(x), wide(static_cast<size_t>(batch * kWide) * sizeof(T));
        Must(cudaDeviceSynchronize() == cudaSuccess, "cudaDeviceSynchronize");
        for (int layer = 0; layer < 6; ++layer) {
          const DeviceBytes &from = layer % 2 == 0 ? narrow : wide, &to = layer % 2 == 0 ? wide : narrow;
          Multiply(weights[layer % 2], from.get(), to.get(), batch, type, accuracy, workspace, stream);
          if (wait) stream.Wait();
        }
        stream.Wait();
        return narrow.Read<Bits>();
      };
      const std::vector<Bits> want = run(true);
      bool same = true;
      for (int turn = 0; turn < 3; ++turn) same &= run(false) == want;
      Check(same, std::string(rotated ? "rotated " : "") + "layers one after the other, " + codec.name + (sizeof(T) == 2 ? " float16 " : " float ") + std::to_string(batch) +
                      " accuracy " + std::to_string(accuracy));
    }
  }
}

// Weights that are decoded to where the call before reads its activations, and one-sided products of what the call before writes.
void Others(const Codec& codec) {
  Options options;
  options.gains = {3, 4, 5, 6};
  options.consecutive = codec.dim == 1;
  options.centre_step = codec.dim == 1 ? 0.5f : 0;
  Sample sample(codec, kNarrow, kNarrow, options, 9);
  const DeviceSample weight(sample.spec());
  constexpr int64_t kBatch = 16;
  const std::vector<float> x = Normal<float>(static_cast<size_t>(kBatch * kNarrow));
  const DeviceBytes workspace(static_cast<size_t>(cosetq_cuda_linear_workspace(weight.get(), kBatch, COSETQ_FLOAT, schema::kAccuracyAccurate)));
  const DeviceBytes partial(static_cast<size_t>(cosetq_cuda_vlut_workspace(weight.get())));
  const Stream stream;
  const auto run = [&](bool wait) {
    const DeviceBytes in(x), middle(static_cast<size_t>(kNarrow * kNarrow) * sizeof(float)), out(in.bytes()), products(static_cast<size_t>(kNarrow) * sizeof(float));
    Must(cudaDeviceSynchronize() == cudaSuccess, "cudaDeviceSynchronize");
    const auto step = [&](int status) {
      Must(status == 0, "a call");
      if (wait) stream.Wait();
    };
    Multiply(weight, in.get(), middle.get(), kBatch, COSETQ_FLOAT, schema::kAccuracyAccurate, workspace, stream);
    step(0);
    Multiply(weight, middle.get(), out.get(), kBatch, COSETQ_FLOAT, schema::kAccuracyAccurate, workspace, stream);
    step(0);
    step(cosetq_cuda_decode(weight.get(), middle.get(), COSETQ_FLOAT, stream.get()));
    if (partial.bytes() > 0) {
      const auto* query = static_cast<const float*>(out.get());
      step(cosetq_cuda_vlut(weight.get(), query, static_cast<float*>(products.get()), partial.get(), stream.get()));
      step(cosetq_cuda_vlut(weight.get(), static_cast<const float*>(products.get()), static_cast<float*>(in.get()), partial.get(), stream.get()));
    }
    stream.Wait();
    std::vector<uint32_t> all;
    for (const DeviceBytes* bytes : {&in, &middle, &out}) {
      const std::vector<uint32_t> part = bytes->Read<uint32_t>();
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  };
  const std::vector<uint32_t> want = run(true);
  bool same = true;
  for (int turn = 0; turn < 3; ++turn) same &= run(false) == want;
  Check(same, std::string("decoding and tables one after the other, ") + codec.name);
}

}  // namespace

void TestCudaOrder(bool brief) {
  // The order of kernels is nothing that a sanitizer sees, which takes minutes for them.
  const std::vector<int64_t> batches = brief ? std::vector<int64_t>{20} : std::vector<int64_t>{1, 2, 4, 8, 16, 20, 32, 40, 64, 128, 300};
  const std::vector<const char*> names = brief ? std::vector<const char*>{"z1:16"} : std::vector<const char*>{"d4:4,4", "d4:2,4", "z1:16", "z1:4", "e8:2,2"};
  for (const char* name : names) {
    const Codec& codec = CodecNamed(name);
    Layers<float, uint32_t>(codec, batches);
    Layers<uint16_t, uint16_t>(codec, batches);
    // One row, clusters, and many rows that a kernel alone rotates, or the one that makes them ready.
    const std::vector<int64_t> turned = brief ? std::vector<int64_t>{20} : std::vector<int64_t>{1, 4, 20, 64, 1100};
    Layers<float, uint32_t>(codec, turned, true);
    Layers<uint16_t, uint16_t>(codec, turned, true);
    Others(codec);
  }
}

}  // namespace cosetq::test
