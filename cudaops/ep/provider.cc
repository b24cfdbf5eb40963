#include "provider.h"

#include <memory>
#include <new>
#include <string>
#include <vector>

#include "backend.h"
#include "branches.h"
#include "cosetq/schema.h"
#include "memory.h"
#include "placement.h"
#include "program.h"
#include "report.h"

namespace cosetq::ep {
namespace {

constexpr char kConfigNodes[] = "ai.coset.gpu_nodes";

// An entry of the session's configuration, "" where it is not given.
std::string Entry(const OrtSessionOptions* options, const char* key) {
  int given = 0;
  Check(ort->HasSessionConfigEntry(options, key, &given));
  if (given == 0) return "";
  size_t size = 0;
  if (OrtStatus* status = ort->GetSessionConfigEntry(options, key, nullptr, &size)) ort->ReleaseStatus(status);
  std::string value(size, 0);
  Check(ort->GetSessionConfigEntry(options, key, value.data(), &size));
  return value.c_str();
}

void Claim(const OrtGraph* handle, OrtEpGraphSupportInfo* support, bool all) {
  // What runs inside of a node that is not taken with it would go to and fro.
  const OrtNode* parent = nullptr;
  Check(ort->Graph_GetParentNode(handle, &parent));
  if (parent != nullptr) return;
  const Graph graph = Graph::Of(handle);
  const Placement placement = Place(graph, all);
  ReportPlacement(graph, placement);
  for (const std::vector<size_t>& part : placement.parts) {
    std::vector<const OrtNode*> nodes;
    for (size_t i : part) nodes.push_back(graph.nodes[i].handle);
    OrtNodeFusionOptions options = {};
    options.ort_version_supported = schema::kApiVersion;
    options.drop_constant_initializers = true;
    Check(ort_ep->EpGraphSupportInfo_AddNodesToFuse(support, nodes.data(), nodes.size(), &options));
  }
}

// A program as a node of ONNX Runtime.
struct ProgramNode : OrtNodeComputeInfo {
  ProgramNode(Graph graph, const Settings& settings) : OrtNodeComputeInfo{}, program(std::move(graph), settings) {
    ort_version_supported = schema::kApiVersion;
    CreateState = [](OrtNodeComputeInfo* self, OrtNodeComputeContext*, void** state) -> OrtStatus* {
      *state = static_cast<ProgramNode*>(self);
      return nullptr;
    };
    Compute = [](OrtNodeComputeInfo*, void* state, OrtKernelContext* context) {
      return Guard([&] { static_cast<ProgramNode*>(state)->Run(context); });
    };
    ReleaseState = [](OrtNodeComputeInfo*, void*) {};
  }

  void Run(OrtKernelContext* context) {
    void* handle = nullptr;
    Check(ort->KernelContext_GetGPUComputeStream(context, &handle));
    Stream& stream = Stream::At(handle);
    size_t count = 0;
    Check(ort->KernelContext_GetInputCount(context, &count));
    std::vector<Tensor> inputs;
    for (size_t i = 0; i < count; ++i) {
      const OrtValue* value = nullptr;
      Check(ort->KernelContext_GetInput(context, i, &value));
      // ONNX Runtime's own nodes between a node on the CPU and this one copy to memory of the host.
      const bool on_host = ort_ep->MemoryDevice_GetDeviceType(ort_ep->Value_GetMemoryDevice(value)) == OrtMemoryInfoDeviceType_CPU;
      inputs.push_back(on_host ? Upload(Borrow(value), stream) : Borrow(value));
    }
    program.Run(stream, inputs, [&](size_t i, const Shape& shape) {
      OrtValue* value = nullptr;
      Check(ort->KernelContext_GetOutput(context, i, shape.data(), shape.size(), &value));
      Tensor output = Borrow(value);
      // ONNX Runtime hands on what the allocator gave, null where memory ran out.
      if (output.data() == nullptr && output.bytes() > 0) throw std::bad_alloc();
      return output;
    });
    if (handle == nullptr) backend::Synchronize(stream.handle());
  }

  Program program;
};

}  // namespace

Provider::Provider(const OrtSessionOptions* options) : OrtEp{} {
  settings.all_nodes = Entry(options, kConfigNodes) == "all";
  settings.accuracy = Entry(options, schema::kConfigAccuracy);
  ort_version_supported = schema::kApiVersion;
  GetName = [](const OrtEp*) noexcept { return kProviderName; };
  GetCapability = [](OrtEp* self, const OrtGraph* graph, OrtEpGraphSupportInfo* support) noexcept {
    return Guard([&] { Claim(graph, support, static_cast<Provider*>(self)->settings.all_nodes); });
  };
  Compile = [](OrtEp* self, const OrtGraph** graphs, const OrtNode**, size_t count, OrtNodeComputeInfo** infos,
               OrtNode**) noexcept {
    return Guard([&] {
      std::vector<std::unique_ptr<ProgramNode>> made;
      for (size_t i = 0; i < count; ++i) 
        made.push_back(std::make_unique<ProgramNode>(WithBranches(Graph::Of(graphs[i])), static_cast<Provider*>(self)->settings));
      for (size_t i = 0; i < count; ++i) infos[i] = made[i].release();
    });
  };
  ReleaseNodeComputeInfos = [](OrtEp*, OrtNodeComputeInfo** infos, size_t count) noexcept {
    for (size_t i = 0; i < count; ++i) delete static_cast<ProgramNode*>(infos[i]);
  };
  IsConcurrentRunSupported = [](OrtEp*, bool* supported) noexcept -> OrtStatus* {
    *supported = true;
    return nullptr;
  };
}

}  // namespace cosetq::ep
