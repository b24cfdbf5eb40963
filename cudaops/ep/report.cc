#include "report.h"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "attention.h"
#include "backend.h"
#include "branches.h"
#include "cosetq/ep.h"
#include "linear_ops.h"
#include "movement.h"
#include "program.h"

namespace cosetq::ep {
namespace {

std::mutex mutex;
std::string& Lines() {
  static auto* lines = new std::string;
  return *lines;
}

int64_t Give(const std::string& text, char* out, int64_t capacity) {
  const auto size = static_cast<int64_t>(text.size()) + 1;
  if (out != nullptr && size <= capacity) std::memcpy(out, text.c_str(), static_cast<size_t>(size));
  return size;
}

// Names may hold anything; a line has fields closed by tabs.
std::string Field(std::string text) {
  std::replace_if(text.begin(), text.end(), [](char c) { return c == '\t' || c == '\n'; }, ' ');
  return text + "\t";
}

}  // namespace

void ReportPlacement(const Graph& graph, const Placement& placement) {
  std::lock_guard<std::mutex> lock(mutex);
  Lines().clear();
  const auto add = [](const Node& node, const std::string& why) {
    Lines() += Field(node.name) + Field((node.domain.empty() ? "" : node.domain + "::") + node.op) + why + "\n";
  };
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const std::string& why = placement.refusals[i];
    add(graph.nodes[i], why);
    ForEachInside(graph.nodes[i], [&](const Node& inner) { add(inner, why.empty() ? "" : "inside the body of another node, which stays on the CPU"); });
  }
}

}  // namespace cosetq::ep

extern "C" {

int64_t cosetq_ep_device(char* out, int64_t capacity, int64_t* problem) {
  std::string why;
  const std::string name = cosetq::ep::backend::FindDevice(&why);
  if (problem != nullptr) *problem = name.empty();
  return cosetq::ep::Give(name.empty() ? why : name, out, capacity);
}

int64_t cosetq_ep_placement(char* out, int64_t capacity) {
  std::lock_guard<std::mutex> lock(cosetq::ep::mutex);
  return cosetq::ep::Give(cosetq::ep::Lines(), out, capacity);
}

void cosetq_ep_traffic(struct cosetq_ep_traffic* out) {
  const cosetq::ep::Traffic t = cosetq::ep::TotalTraffic();
  *out = {t.runs, t.uploads, t.upload_bytes, t.downloads, t.download_bytes};
}

int64_t cosetq_ep_repeats(void) { return cosetq::ep::TotalTraffic().repeats; }

void cosetq_ep_joined(int64_t* patterns, int64_t* elementwise) {
  const cosetq::ep::Joined j = cosetq::ep::TotalJoined();
  *patterns = j.patterns;
  *elementwise = j.elementwise;
}

void cosetq_ep_attentions(struct cosetq_ep_attentions* out) {
  const cosetq::ep::Attentions a = cosetq::ep::TotalAttentions();
  *out = {a.rows, a.few, a.tiles, a.groups};
}

int64_t cosetq_ep_moves(void) { return cosetq::ep::TotalMoves(); }

int64_t cosetq_ep_free_memory(void) {
  const cosetq::ep::backend::OnDevice on_device;
  return static_cast<int64_t>(cosetq::ep::backend::FreeMemory());
}

int64_t cosetq_ep_weight_bytes(void) { return cosetq::ep::WeightBytes(); }

}  // extern "C"
