// Drives a libFuzzer target where there is no libFuzzer (GCC): random inputs and mutations of the ones
// in a corpus, from a seed, for some seconds.
//
//   target [-seconds=10] [-seed=1] [FILE OR FOLDER]...

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Bytes = std::vector<uint8_t>;

std::vector<Bytes> ReadCorpus(const std::vector<std::string>& paths) {
  std::vector<Bytes> corpus;
  const auto add = [&](const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  };
  for (const std::string& path : paths) {
    if (std::filesystem::is_directory(path)) {
      for (const auto& entry : std::filesystem::directory_iterator(path)) add(entry.path());
    } else {
      add(path);
    }
  }
  return corpus;
}

Bytes Next(const std::vector<Bytes>& corpus, std::mt19937_64* random) {
  const auto below = [&](size_t n) { return static_cast<size_t>((*random)() % n); };
  Bytes input;
  if (!corpus.empty() && below(2) == 0) {
    input = corpus[below(corpus.size())];
    for (size_t edits = 1 + below(8); edits > 0 && !input.empty(); --edits) input[below(input.size())] = static_cast<uint8_t>((*random)());
    return input;
  }
  input.resize(below(2048));
  // Sparse inputs leave most choices at their first, sound value.
  const size_t one_in = below(2) == 0 ? 1 : 8;
  for (uint8_t& b : input) b = below(one_in) == 0 ? static_cast<uint8_t>((*random)()) : 0;
  return input;
}

}  // namespace

int main(int argc, char** argv) {
  double seconds = 10;
  uint64_t seed = 1;
  std::vector<std::string> paths;
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], "-seconds=", 9) == 0) {
      seconds = std::atof(argv[i] + 9);
    } else if (std::strncmp(argv[i], "-seed=", 6) == 0) {
      seed = std::strtoull(argv[i] + 6, nullptr, 10);
    } else {
      paths.push_back(argv[i]);
    }
  }
  const std::vector<Bytes> corpus = ReadCorpus(paths);
  for (const Bytes& input : corpus) LLVMFuzzerTestOneInput(input.data(), input.size());
  std::mt19937_64 random(seed);
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  long runs = 0;
  for (; std::chrono::steady_clock::now() < end; ++runs) {
    const Bytes input = Next(corpus, &random);
    // A crash is found again with the same seed; this says how far it was.
    if (runs % 10000 == 0) std::fprintf(stderr, "run %ld\n", runs);
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  std::fprintf(stderr, "%ld runs, no failure\n", runs);
  return 0;
}
