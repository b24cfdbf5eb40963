// One run of a program, step by step.

#ifndef COSETQ_EP_EXECUTION_H_
#define COSETQ_EP_EXECUTION_H_

#include <algorithm>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "backend.h"
#include "branches.h"
#include "movement.h"
#include "program.h"

namespace cosetq::ep {

inline bool TellsShape(const Node& node) { return node.domain.empty() && (node.op == "Shape" || node.op == "Size"); }

inline bool Bit(uint32_t set, size_t i) { return i < 32 && (set >> i & 1) != 0; }

// One run. Fixed values live in the memory of the shapes, all others in slots of their own.
class Program::Execution {
 public:
  Execution(Program& program, Memory& memory, Stream& stream, const MakeOutput& make_output)
      : program_(program), memory_(memory), stream_(stream), make_output_(make_output),
        slots_(program.graph_.values.size()), written_(program.graph_.outputs.size(), nullptr), taken_(program.graph_.branches.size()) {}

  // Whether what stands in a branch runs.
  bool Takes(int branch) {
    if (branch < 0) return true;
    std::optional<bool>& taken = taken_[static_cast<size_t>(branch)];
    if (!taken) {
      const Branch& b = program_.graph_.branches[static_cast<size_t>(branch)];
      taken = Takes(b.outer) && Truth(OnHost(b.condition)) == b.truth;
    }
    return *taken;
  }

  Slot& At(int value) {
    const auto v = static_cast<size_t>(value);
    Slot& constant = program_.constants_[v];
    if (constant.type != Type::kNone) return constant;
    return program_.fixed_[v] ? memory_.slots[v] : slots_[v];
  }

  Tensor OnHost(int value) {
    Slot& slot = At(value);
    Tensor tensor{slot.type, slot.shape, nullptr};
    if (!slot.host) {
      OnDevice(value);
      slot.host = Buffer::OnHost(tensor.bytes());
      if (tensor.bytes() > 0) {
        backend::CopyToHost(slot.host->data(), slot.device->data(), tensor.bytes(), stream_.handle());
        backend::Synchronize(stream_.handle());
      }
      CountDownload(tensor.bytes());
    }
    tensor.buffer = slot.host;
    return tensor;
  }

  Tensor OnDevice(int value) {
    Slot& slot = At(value);
    const Tensor there = AsItLies(value);
    if (slot.lies == nullptr) return there;
    const Tensor whole{slot.type, slot.shape, Buffer::OnDevice(stream_.arena(), there.bytes())};
    Move(stream_, slot.lies->sizes(), there, 0, slot.lies->strides(), whole, 0, Strides(slot.lies->sizes()));
    slot.device = whole.buffer;
    slot.lies = nullptr;
    return whole;
  }

  Tensor AsItLies(int value) {
    Slot& slot = At(value);
    if (!slot.device) slot.device = Upload({slot.type, slot.shape, slot.host}, stream_).buffer;
    return {slot.type, slot.shape, slot.device};
  }

  // What the graph is given may be written to by a node that has it as its output too, after others have read it.
  bool IsInput(const Tensor& tensor) { return std::find(inputs_.begin(), inputs_.end(), tensor.buffer->begin()) != inputs_.end(); }
  void SetInput(int value, const Tensor& tensor) {
    if (!program_.fixed_[static_cast<size_t>(value)]) At(value) = {tensor.type, tensor.shape, nullptr, tensor.buffer, nullptr};
    inputs_.push_back(tensor.data());
  }

  // Memory for what a step makes; a graph's output is written where ONNX Runtime wants it.
  Tensor Make(const Step& step, int value, Type type, const Shape& shape) {
    Slot& slot = At(value);
    slot = {type, shape, nullptr, nullptr, nullptr};
    Tensor tensor{type, shape, nullptr};
    const size_t bytes = tensor.bytes();
    if (step.on_host) {
      tensor.buffer = slot.host = Buffer::OnHost(bytes);
      return tensor;
    }
    const int output = program_.output_index_[static_cast<size_t>(value)];
    if (output >= 0 && !step.fixed) {
      tensor = make_output_(static_cast<size_t>(output), shape);
      if (tensor.type != type) throw std::runtime_error("output " + std::to_string(output) + " has another type than its kernel gives");
      written_[static_cast<size_t>(output)] = tensor.data();
    } else {
      tensor.buffer = Buffer::OnDevice(stream_.arena(), bytes);
    }
    slot.device = tensor.buffer;
    return tensor;
  }

  void Finish() {
    for (size_t i = 0; i < written_.size(); ++i) {
      if (written_[i] != nullptr) continue;
      const Tensor from = OnDevice(program_.graph_.outputs[i]);
      const Tensor to = make_output_(i, from.shape);
      stream_.Copy(to.data(), from.data(), from.bytes());
    }
  }

  // Gives up the memory of values, whose shapes may still be asked for.
  void Forget(const std::vector<int>& values) {
    for (int v : values) {
      Slot& slot = slots_[static_cast<size_t>(v)];
      slot = {slot.type, slot.shape, nullptr, nullptr, nullptr};
    }
  }

  Stream& stream() { return stream_; }
  Call::Given given;
  bool IsOutput(int value) const { return program_.output_index_[static_cast<size_t>(value)] >= 0; }

 private:
  Program& program_;
  Memory& memory_;
  Stream& stream_;
  const MakeOutput& make_output_;
  std::vector<Slot> slots_;
  std::vector<void*> written_;
  std::vector<const void*> inputs_;
  std::vector<std::optional<bool>> taken_;  // by branch, once asked for
};

class Program::StepCall : public Call {
 public:
  StepCall(Execution& execution, const Step& step)
      : Call(*step.node, step.on_host ? Stream::Host() : execution.stream(), step.state.get(), execution.given),
        execution_(execution), step_(step) {
    const size_t count = node.inputs.size();
    if (given_.tensors.size() < count) given_.tensors.resize(count);
    given_.data.assign(count, nullptr);
    given_.lies.assign(count, nullptr);
    for (size_t i = 0; i < count; ++i) {
      if (node.inputs[i] < 0 || Bit(step.op->constant_inputs, i)) continue;
      if (TellsShape(node)) {
        const Slot& slot = execution.At(node.inputs[i]);
        Give(i, {slot.type, slot.shape, nullptr});
      } else if (step.on_host || Bit(step.op->host_inputs, i)) {
        Give(i, execution.OnHost(node.inputs[i]));
      } else if (Bit(step.op->strided_inputs, i)) {
        Give(i, execution.AsItLies(node.inputs[i]));
        given_.lies[i] = execution.At(node.inputs[i]).lies;
      } else {
        Give(i, execution.OnDevice(node.inputs[i]));
      }
    }
  }
  // Memory that nobody uses any more is for the next node.
  ~StepCall() override {
    for (size_t i = 0; i < node.inputs.size(); ++i) given_.tensors[i].buffer = nullptr;
    given_.lies.clear();
  }

  Tensor Out(size_t i, Type type, const Shape& shape) override {
    if (i < node.outputs.size() && node.outputs[i] >= 0) return execution_.Make(step_, node.outputs[i], type, shape);
    return Scratch(type, shape);
  }

  Tensor Whole(size_t i) override {
    if (lies(i) != nullptr) {
      Give(i, execution_.OnDevice(node.inputs[i]));
      given_.lies[i] = nullptr;
    }
    return in(i);
  }

  void View(size_t i, const Tensor& of, const Shape& shape) override {
    Slot& slot = execution_.At(node.outputs.at(i));
    slot = {of.type, shape, nullptr, nullptr, nullptr};
    (step_.on_host ? slot.host : slot.device) = of.buffer;
  }

  bool Lie(size_t i, const Tensor& of, const Strided& lies) override {
    if (node.outputs.at(i) < 0) return true;  // left out
    const bool whole = lies.whole();
    if (execution_.IsInput(of) && !(whole && lies.shape() == of.shape)) return false;
    if (whole) {
      View(i, of, lies.shape());
      return true;
    }
    const Shape sizes = lies.sizes();
    if (step_.on_host || step_.fixed || execution_.IsOutput(node.outputs.at(i)) || sizes.size() > static_cast<size_t>(kMaxRank) || Count(sizes) == 0) return false;
    execution_.At(node.outputs[i]) = {of.type, lies.shape(), nullptr, of.buffer, std::make_shared<const Strided>(lies)};
    return true;
  }

 private:
  void Give(size_t i, const Tensor& tensor) {
    given_.tensors[i] = tensor;
    given_.data[i] = &given_.tensors[i];
  }

  Execution& execution_;
  const Step& step_;
};

}  // namespace cosetq::ep

#endif  // COSETQ_EP_EXECUTION_H_
