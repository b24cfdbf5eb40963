#include "program.h"

#include <algorithm>
#include <atomic>
#include <stdexcept>

#include "backend.h"
#include "branches.h"
#include "common.h"
#include "execution.h"
#include "states.h"

namespace cosetq::ep {
namespace {

constexpr size_t kMaxMemories = 16;

std::atomic<int64_t> runs, repeats, uploads, upload_bytes, downloads, download_bytes;

}  // namespace

Traffic TotalTraffic() { return {runs, repeats, uploads, upload_bytes, downloads, download_bytes}; }

Tensor Upload(const Tensor& tensor, Stream& stream) {
  Tensor copy = tensor;
  copy.buffer = Buffer::OnDevice(stream.arena(), tensor.bytes());
  if (tensor.bytes() > 0) {
    backend::CopyToDevice(copy.data(), tensor.data(), tensor.bytes(), stream.handle());
    backend::Synchronize(stream.handle());  // the host memory may go
  }
  ++uploads;
  upload_bytes += static_cast<int64_t>(tensor.bytes());
  return copy;
}

void CountDownload(size_t bytes) {
  ++downloads;
  download_bytes += static_cast<int64_t>(bytes);
}

Program::Program(Graph graph, const Settings& settings) : graph_(std::move(graph)), switches_(Switches(graph_)) {
  for (const Node& node : graph_.nodes) {
    Step step;
    step.node = &node;
    step.op = FindOperator(node.domain, node.op);
    if (step.op == nullptr) throw std::logic_error("no operator " + node.op);
    step.branch = node.branch;
    steps_.push_back(std::move(step));
  }
  output_index_.assign(graph_.values.size(), -1);
  for (size_t i = 0; i < graph_.outputs.size(); ++i)
    output_index_[static_cast<size_t>(graph_.outputs[i])] = static_cast<int>(i);
  Place();
  FindPicks();
  FusePatterns();
  FuseSums();
  FuseElementwise();
  ReadConstants(settings);
  FuseGatedProducts();
  FuseProducts();
  FuseAppends();
  GiveOutputs();
  FindLastUses();
  FindKinds();
}

Program::~Program() = default;

// Decides what is fixed and what runs on the host.
void Program::Place() {
  const size_t count = graph_.values.size();
  fixed_.assign(count, false);
  std::vector<bool> fixed_shape(count, false), wanted_on_host(count, false);
  for (size_t v = 0; v < count; ++v) fixed_[v] = fixed_shape[v] = graph_.values[v].constant != nullptr;
  for (int v : graph_.inputs) fixed_shape[static_cast<size_t>(v)] = true;
  for (size_t i : switches_) fixed_[static_cast<size_t>(graph_.inputs[i])] = true;
  std::vector<bool> made(count, false);
  std::vector<bool> hosted = fixed_, hosts(steps_.size());  // by value, and by step: whether every run can have it on the host without a copy
  for (size_t s = 0; s < steps_.size(); ++s) {
    Step& step = steps_[s];
    bool decided = true;  // whether a run knows at its begin if it takes the branch
    ForEachCondition(graph_, step.branch, [&](size_t v) { decided = decided && fixed_[v], wanted_on_host[v] = true; });
    recordable_ = recordable_ && decided && !step.op->remembers;
    // What two branches make in turn hangs on the condition too.
    const bool told = decided || !GivesOutput(*step.node);
    bool fixed = told && !step.op->remembers, shape = told, host = true;
    for (size_t i = 0; i < step.node->inputs.size(); ++i) {
      if (step.node->inputs[i] < 0) continue;
      const auto v = static_cast<size_t>(step.node->inputs[i]);
      fixed = fixed && (TellsShape(*step.node) ? fixed_shape[v] : fixed_[v]);
      host = host && (TellsShape(*step.node) || hosted[v]);
      if (Bit(step.op->host_inputs, i) && !fixed_[v]) recordable_ = false;
      shape = shape && (Bit(step.op->host_inputs, i) ? fixed_[v] : fixed_shape[v]);
      if (Bit(step.op->host_inputs, i)) wanted_on_host[v] = true;
    }
    step.fixed = fixed;
    hosts[s] = host;
    step.on_host = TellsShape(*step.node);
    for (int v : step.node->outputs) {
      if (v < 0) continue;
      const bool again = made[static_cast<size_t>(v)];
      fixed_[static_cast<size_t>(v)] = fixed && (!again || fixed_[static_cast<size_t>(v)]);
      fixed_shape[static_cast<size_t>(v)] = shape && (!again || fixed_shape[static_cast<size_t>(v)]);
      hosted[static_cast<size_t>(v)] = host && (!again || hosted[static_cast<size_t>(v)]);
      made[static_cast<size_t>(v)] = true;
    }
  }
  for (Step& step : steps_) {
    if (step.branch >= 0 && step.node->outputs[0] >= 0) step.fixed = step.fixed && fixed_[static_cast<size_t>(step.node->outputs[0])];
  }
  for (size_t s = steps_.size(); s-- > 0;) {
    Step& step = steps_[s];
    bool wanted = false;
    for (int v : step.node->outputs) wanted = wanted || (v >= 0 && wanted_on_host[static_cast<size_t>(v)]);
    if (!wanted || !hosts[s] || step.op->heavy || TellsShape(*step.node)) continue;
    step.on_host = true;
    for (int v : step.node->inputs) {
      if (v >= 0) wanted_on_host[static_cast<size_t>(v)] = true;
    }
  }
}

// Brings each constant to where it is used, and makes the states.
void Program::ReadConstants(const Settings& settings) {
  constants_.resize(graph_.values.size());
  std::vector<bool> on_host(graph_.values.size(), false), on_device(graph_.values.size(), false);
  for (const Step& step : steps_) {
    for (size_t i = 0; i < step.node->inputs.size(); ++i) {
      if (step.node->inputs[i] < 0 || TellsShape(*step.node) || Bit(step.op->constant_inputs, i)) continue;
      const auto v = static_cast<size_t>(step.node->inputs[i]);
      (step.on_host || Bit(step.op->host_inputs, i) ? on_host : on_device)[v] = true;
    }
  }
  for (int v : graph_.outputs) on_device[static_cast<size_t>(v)] = true;
  for (const Branch& b : graph_.branches) on_host[static_cast<size_t>(b.condition)] = true;
  Stream& stream = Stream::At(nullptr);
  std::map<std::pair<std::string, Shape>, int> numbers;
  const auto read = [&](size_t v) {
    const Tensor tensor = ReadConstant(graph_.values[v].constant);
    constants_[v].type = tensor.type;
    constants_[v].shape = tensor.shape;
    return tensor;
  };
  for (const Step& step : steps_) {
    if (!TellsShape(*step.node)) continue;
    const auto v = static_cast<size_t>(step.node->inputs[0]);
    if (graph_.values[v].constant != nullptr) read(v);
  }
  for (size_t v = 0; v < constants_.size(); ++v) {
    if (graph_.values[v].constant == nullptr) continue;
    if (!on_host[v] && !on_device[v]) continue;
    const Tensor tensor = read(v);
    if (on_host[v]) {
      constants_[v].host = Buffer::OnHost(tensor.bytes());
      Stream::Host().Copy(constants_[v].host->data(), tensor.data(), tensor.bytes());
      const std::string bytes(tensor.data<char>(), tensor.bytes());
      constants_[v].number = numbers.emplace(std::make_pair(static_cast<char>(tensor.type) + bytes, tensor.shape), constant_numbers_ + 1).first->second;
      constant_numbers_ = std::max(constant_numbers_, constants_[v].number);
    }
    if (!on_device[v]) continue;
    constants_[v].device = Buffer::OnDevice(constant_memory_, tensor.bytes());
    backend::CopyToDevice(constants_[v].device->data(), tensor.data(), tensor.bytes(), stream.handle());
  }
  States states;
  for (Step& step : steps_) {
    if (step.op->prepare == nullptr) continue;
    std::vector<Tensor> tensors(step.node->inputs.size());
    std::vector<const Tensor*> constants(step.node->inputs.size());
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (step.node->inputs[i] < 0 || !Bit(step.op->constant_inputs, i)) continue;
      tensors[i] = read(static_cast<size_t>(step.node->inputs[i]));
      constants[i] = &tensors[i];
    }
    step.state = states.Of(*step.node, *step.op, constants, settings);
  }
  backend::Synchronize(stream.handle());
  // What the constants came from is gone once this returns.
  for (Value& value : graph_.values) value.constant = nullptr;
}

void Program::FindLastUses() {
  std::vector<bool> used(graph_.values.size(), false);
  for (int v : graph_.outputs) used[static_cast<size_t>(v)] = true;
  for (size_t s = steps_.size(); s-- > 0;) {
    const auto use = [&](size_t v) {
      if (used[v]) return;
      used[v] = true;
      if (!fixed_[v]) steps_[s].finished.push_back(static_cast<int>(v));
    };
    for (const auto* list : {&steps_[s].node->inputs, &steps_[s].node->outputs}) {
      if (list == &steps_[s].node->inputs && TellsShape(*steps_[s].node)) continue;  // shapes are not forgotten
      for (int v : *list) {
        if (v >= 0) use(static_cast<size_t>(v));
      }
    }
    ForEachCondition(graph_, steps_[s].branch, use);
  }
}

void Program::FindKinds() {
  std::map<std::string, int> kinds;
  for (Step& step : steps_) {
    if (!step.fixed || !step.on_host || step.state != nullptr) continue;
    std::string what = std::to_string(reinterpret_cast<uintptr_t>(step.op)) + ' ' + std::to_string(step.node->version) + ' ' + step.node->attributes.Key();
    for (int v : step.node->outputs) what += v < 0 ? '-' : '+';
    step.kind = kinds.emplace(what, static_cast<int>(kinds.size()) + 1).first->second;
  }
}

void Program::EndRun(Stream& stream, bool repeated) {
  std::shared_ptr<void>& end = ends_[stream.handle()];
  if (end == nullptr) end.reset(backend::CreateEvent(), backend::DestroyEvent);
  backend::Record(end.get(), stream.handle());
  if (repeated) last_repeat_ = end;
}

// Not for the whole device, where another session may be recording, which that would end.
void Program::WaitForRuns() {
  for (const auto& [stream, end] : ends_) backend::WaitOnHost(end.get());
}

// The last one began when those before it had ended.
void Program::WaitForRepeats() {
  if (last_repeat_ != nullptr) backend::WaitOnHost(last_repeat_.get());
}

Program::Memory& Program::Recall(const std::vector<Tensor>& inputs, std::vector<bool> switches) {
  std::vector<Shape> shapes;
  for (const Tensor& t : inputs) shapes.push_back(t.shape);
  const auto found = std::find_if(memories_.begin(), memories_.end(),
                                  [&](const Memory& m) { return m.shapes == shapes && m.switches == switches; });
  if (found != memories_.end()) {
    memories_.splice(memories_.begin(), memories_, found);
    return memories_.front();
  }
  if (memories_.size() == kMaxMemories) {
    WaitForRuns();  // whoever uses it has to be done
    memories_.pop_back();
  }
  Memory& memory = memories_.emplace_front();
  memory.shapes = std::move(shapes);
  memory.slots.resize(graph_.values.size());
  memory.made.assign(steps_.size(), false);
  memory.numbers = constant_numbers_;
  for (size_t i = 0; i < switches_.size(); ++i) {
    const Tensor& input = inputs[switches_[i]];
    const std::shared_ptr<Buffer> truth = Buffer::OnHost(1);
    *static_cast<bool*>(truth->data()) = switches[i];
    memory.slots[static_cast<size_t>(graph_.inputs[switches_[i]])] = {input.type, input.shape, truth, nullptr, nullptr};
  }
  memory.switches = std::move(switches);
  memory.inputs_move.assign(inputs.size(), false);
  memory.outputs_move.assign(graph_.outputs.size(), false);
  return memory;
}

void Program::Enqueue(Memory& memory, Stream& stream, const std::vector<Tensor>& inputs, const MakeOutput& make_output) {
  Execution execution(*this, memory, stream, make_output);
  for (size_t i = 0; i < inputs.size(); ++i) execution.SetInput(graph_.inputs[i], inputs[i]);
  Common common(execution, memory.numbers);
  for (size_t s = 0; s < steps_.size(); ++s) {
    const Step& step = steps_[s];
    if ((step.fixed && memory.made[s]) || !execution.Takes(step.branch)) {
      execution.Forget(step.finished);
      continue;
    }
    if (step.fixed) memory.made[s] = true, memory.complete = false;
    if (!common.Take(step)) {
      StepCall call(execution, step);
      try {
        step.op->run(call);
      } catch (const std::bad_alloc&) {
        throw;
      } catch (const std::exception& e) {
        throw std::runtime_error(step.node->op + " node " + step.node->name + ": " + e.what());
      }
      common.Keep(step);
    }
    execution.Forget(step.finished);
  }
  execution.Finish();
}

void Program::Run(Stream& stream, const std::vector<Tensor>& inputs, const MakeOutput& make_output) {
  std::lock_guard<std::mutex> lock(mutex_);
  Memory& memory = Recall(inputs, ReadSwitches(stream, inputs));
  try {
    const bool repeated = RunRecorded(memory, stream, inputs, make_output);
    if (repeated) {
      ++repeats;
    } else {
      Ends ends;
      for (const Tensor& input : inputs) ends.inputs.push_back({input.type, input.shape, Buffer::Borrowed(input.data())});
      ends.outputs.resize(graph_.outputs.size());
      Enqueue(memory, stream, inputs, [&](size_t i, const Shape& shape) {
        const Tensor output = make_output(i, shape);
        ends.outputs[i] = {output.type, output.shape, Buffer::Borrowed(output.data())};
        return output;
      });
      if (!memory.complete) {
        backend::Synchronize(stream.handle());  // other streams may use what was made
        memory.complete = true;
      }
      memory.last = std::move(ends);
      ++memory.runs;
    }
    EndRun(stream, repeated);
    ++runs;
  } catch (...) {
    try {
      backend::Synchronize(stream.handle());  // what was launched uses the memory
      WaitForRuns();
    } catch (const DeviceError&) {
      // the first error says more
    }
    memories_.pop_front();
    throw;
  }
}

}  // namespace cosetq::ep
