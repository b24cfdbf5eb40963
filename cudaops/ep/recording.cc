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
      const bool stays = !memory.moves && inputs[i].data() == memory.last.inputs[i].data();
      recording->inputs_stay.push_back(stays);
      recording->ends.inputs.push_back(stays ? memory.last.inputs[i] : own(inputs[i].type, inputs[i].shape));
    }
    recording->ends.outputs.resize(graph_.outputs.size());
    recording->outputs_stay.assign(graph_.outputs.size(), !memory.moves);
    backend::BeginRecording(recorder_->handle());
    try {
      Enqueue(memory, *recorder_, recording->ends.inputs, [&](size_t i, const Shape& shape) {
        const Type type = graph_.values[static_cast<size_t>(graph_.outputs[i])].type;
        return recording->ends.outputs[i] = memory.moves ? own(type, shape) : memory.last.outputs[i];
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

// False, and nothing is done, if inputs or outputs are not where the recording has them.
bool Program::Repeat(const Recording& recording, Stream& stream, const std::vector<Tensor>& inputs, const MakeOutput& make_output) {
  std::vector<Tensor> outputs;
  for (size_t i = 0; i < recording.ends.outputs.size(); ++i) {
    outputs.push_back(make_output(i, recording.ends.outputs[i].shape));
    if (recording.outputs_stay[i] && outputs[i].data() != recording.ends.outputs[i].data()) return false;
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (recording.inputs_stay[i] && inputs[i].data() != recording.ends.inputs[i].data()) return false;
  }
  if (last_repeat_ != nullptr) backend::WaitOnStream(last_repeat_.get(), stream.handle());
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!recording.inputs_stay[i]) stream.Copy(recording.ends.inputs[i].data(), inputs[i].data(), inputs[i].bytes());
  }
  backend::Repeat(recording.work.get(), stream.handle());
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!recording.outputs_stay[i]) stream.Copy(outputs[i].data(), recording.ends.outputs[i].data(), outputs[i].bytes());
  }
  return true;
}

// False if there is no recording of such a run, which is then to be run kernel by kernel. A run is recorded when it has come often enough, and once
// more, to be copied to and from, when its inputs or outputs have moved.
bool Program::RunRecorded(Memory& memory, Stream& stream, const std::vector<Tensor>& inputs, const MakeOutput& make_output) {
  const auto record = [&] {
    if (memory.recording == nullptr && recordable_ && memory.runs >= kRunsBeforeRecording && memory.attempts < kAttempts)
      Record(memory, inputs);
  };
  const auto repeat = [&] { return memory.recording != nullptr && Repeat(*memory.recording, stream, inputs, make_output); };
  record();
  if (repeat()) return true;
  if (memory.recording == nullptr) return false;
  WaitForRepeats();  // it may be among those still under way
  memory.recording = nullptr;
  memory.moves = true;
  record();
  return repeat();
}

}  // namespace cosetq::ep
