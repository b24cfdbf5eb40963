// Runs that are recorded, and repeated as a whole.

#include <stdexcept>

#include "backend.h"
#include "program.h"

namespace cosetq::ep {
namespace {

// Runs with the same shapes before they are recorded, which takes as long as several; attempts, each of which failed for want of memory,
// was undone for the sake of other shapes, or met inputs and outputs elsewhere; and the memory of all recordings, in bytes: with more, launches are no longer what takes time.
constexpr int kRunsBeforeRecording = 2, kAttempts = 3;
constexpr size_t kRecorderMemory = size_t{256} << 20;

}  // namespace

// Leaves the memory without a recording if there can be none, or too little room for it.
void Program::Record(Memory& memory, const std::vector<Tensor>& inputs) {
  ++memory.attempts;
  const bool alone = recorder_ == nullptr;
  if (alone) recorder_ = std::make_unique<Stream>(kRecorderMemory);
  const auto own = [&](Type type, const Shape& shape) {
    Tensor tensor{type, shape, nullptr};
    tensor.buffer = Buffer::OnDevice(recorder_->arena(), tensor.bytes());
    return tensor;
  };
  try {
    auto recording = std::make_unique<Recording>();
    for (size_t i = 0; i < inputs.size(); ++i) {
      const bool stays = !memory.inputs_move[i] && inputs[i].data() == memory.last.inputs[i].data();
      recording->inputs_stay.push_back(stays);
      recording->ends.inputs.push_back(stays ? memory.last.inputs[i] : own(inputs[i].type, inputs[i].shape));
    }
    recording->ends.outputs.resize(graph_.outputs.size());
    for (const bool moves : memory.outputs_move) recording->outputs_stay.push_back(!moves);
    const auto output = [&](size_t i, Type type, const Shape& shape) {
      return recording->ends.outputs[i] = memory.outputs_move[i] ? own(type, shape) : memory.last.outputs[i];
    };
    if (!backend::kRecords) {
      for (size_t i = 0; i < graph_.outputs.size(); ++i) output(i, memory.last.outputs[i].type, memory.last.outputs[i].shape);
      memory.recording = std::move(recording);
      return;
    }
    backend::BeginRecording(recorder_->handle());
    try {
      Enqueue(memory, *recorder_, recording->ends.inputs, [&](size_t i, const Shape& shape) {
        return output(i, graph_.values[static_cast<size_t>(graph_.outputs[i])].type, shape);
      });
    } catch (...) {
      try {
        backend::DestroyRecording(backend::EndRecording(recorder_->handle()));
      } catch (const DeviceError&) {
        // what was recorded cannot be used, which it will not be
      }
      throw;
    }
    recording->work.reset(backend::EndRecording(recorder_->handle()), backend::DestroyRecording);
    // The arena has it for the next recording, and keeps it.
    for (auto* tensors : {&recording->ends.inputs, &recording->ends.outputs}) {
      for (Tensor& tensor : *tensors) tensor.buffer = Buffer::Borrowed(tensor.data());
    }
    memory.recording = std::move(recording);
  } catch (const std::bad_alloc&) {
    if (alone) memory.attempts = kAttempts;  // the next one would find no more
    WaitForRepeats();
    for (Memory& other : memories_) other.recording = nullptr;
    recorder_ = nullptr;
  } catch (const std::exception&) {
    memory.attempts = kAttempts;  // work that cannot be recorded; where it cannot be done either, the plain run says why
  }
}

// False, and nothing is done, if inputs or outputs are not where the recording has them, which is noted.
bool Program::Repeat(Memory& memory, Stream& stream, const std::vector<Tensor>& inputs, const MakeOutput& make_output) {
  const Recording& recording = *memory.recording;
  std::vector<Tensor> outputs;
  bool there = true;
  for (size_t i = 0; i < recording.ends.outputs.size(); ++i) {
    outputs.push_back(make_output(i, recording.ends.outputs[i].shape));
    if (recording.outputs_stay[i] && outputs[i].data() != recording.ends.outputs[i].data()) memory.outputs_move[i] = true, there = false;
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (recording.inputs_stay[i] && inputs[i].data() != recording.ends.inputs[i].data()) memory.inputs_move[i] = true, there = false;
  }
  if (!there) return false;
  if (last_repeat_ != nullptr) backend::WaitOnStream(last_repeat_.get(), stream.handle());
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!recording.inputs_stay[i]) stream.Copy(recording.ends.inputs[i].data(), inputs[i].data(), inputs[i].bytes());
  }
  if (backend::kRecords) {
    backend::Repeat(recording.work.get(), stream.handle());
  } else {
    Enqueue(memory, *recorder_, recording.ends.inputs, [&](size_t i, const Shape&) { return recording.ends.outputs[i]; });
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!recording.outputs_stay[i]) stream.Copy(outputs[i].data(), recording.ends.outputs[i].data(), outputs[i].bytes());
  }
  return true;
}

// False if there is no recording of such a run, which is then to be run kernel by kernel. A run is recorded when it has come often enough, and once
// more when some of its inputs or outputs have moved, which are copied to and from it then; in the end all are.
bool Program::RunRecorded(Memory& memory, Stream& stream, const std::vector<Tensor>& inputs, const MakeOutput& make_output) {
  const auto record = [&] {
    if (memory.recording == nullptr && recordable_ && memory.runs >= kRunsBeforeRecording && memory.attempts < kAttempts)
      Record(memory, inputs);
  };
  const auto repeat = [&] { return memory.recording != nullptr && Repeat(memory, stream, inputs, make_output); };
  record();
  if (repeat()) return true;
  if (memory.recording == nullptr) return false;
  WaitForRepeats();  // it may be among those still under way
  memory.recording = nullptr;
  if (memory.attempts == kAttempts - 1) {
    memory.inputs_move.assign(memory.inputs_move.size(), true);
    memory.outputs_move.assign(memory.outputs_move.size(), true);
  }
  record();
  return repeat();
}

}  // namespace cosetq::ep
