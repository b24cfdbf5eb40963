// A part of a graph, ready to run as one node of ONNX Runtime.

#ifndef COSETQ_EP_PROGRAM_H_
#define COSETQ_EP_PROGRAM_H_

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "backend.h"
#include "graph.h"
#include "operator.h"

namespace cosetq::ep {

// What crossed between host and device inside programs since the library was loaded.
struct Traffic {
  int64_t runs = 0, repeats = 0;
  int64_t uploads = 0, upload_bytes = 0;
  int64_t downloads = 0, download_bytes = 0;
};
Traffic TotalTraffic();

// What became one step in programs since the library was loaded: operators in pieces, products of the same rows, sums with their norms, and elementwise
// nodes that others took in.
struct Joined {
  int64_t patterns = 0, elementwise = 0;
};
Joined TotalJoined();
// Counts a pattern.
void CountPattern();

// A copy on the device of a tensor of the host, which counts as traffic.
Tensor Upload(const Tensor& tensor, Stream& stream);
// Counts a copy in the other direction.
void CountDownload(size_t bytes);

// Constants are on the device from the start. What depends on the shapes of the inputs alone (masks,
// positions, shapes themselves) is computed at the first run with those shapes and kept: on the host
// where it decides about shapes, else on the device. So a run with known shapes copies nothing
// between host and device, and after some such runs it is recorded, and repeated as a whole. Inputs that tell which branches run are read
// before each run, and count as shapes do.
class Program {
 public:
  Program(Graph graph, const Settings& settings);
  ~Program();

  // Gives the memory of output i of a shape, on the device.
  using MakeOutput = std::function<Tensor(size_t i, const Shape& shape)>;
  // Enqueues a run; the inputs are on the device.
  void Run(Stream& stream, const std::vector<Tensor>& inputs, const MakeOutput& make_output);

 private:
  struct Step {
    const Node* node = nullptr;
    const Operator* op = nullptr;
    std::shared_ptr<const State> state;
    int branch = -1;  // that it stands in
    bool on_host = false;
    bool fixed = false;         // its outputs depend on the shapes of the graph's inputs alone, and on its switches
    int kind = 0;               // what it does, alike for steps that give the same of the same numbers; 0 for one that is always run
    std::vector<int> finished;  // values of which no later step uses more than the shape
  };
  // A value in a run: its shape, and where it is so far.
  struct Slot {
    Type type = Type::kNone;
    Shape shape;
    std::shared_ptr<Buffer> host, device;
    std::shared_ptr<const Strided> lies;  // on the device, null for as the shape says
    int number = 0;                       // of what is on the host, alike where that is; 0 where nobody knows
  };
  // Where the inputs and outputs of a run are.
  struct Ends {
    std::vector<Tensor> inputs, outputs;
  };
  // A run of one set of input shapes as one piece of work, which is launched in a few microseconds where every kernel of its own takes
  // that. Its memory is that of the recorder, shared with all others: only one of them runs at a time. Inputs and outputs that are where
  // they were in the runs before, as those are that a program binds once, are used there; others are copied.
  struct Recording {
    Ends ends;
    std::vector<bool> inputs_stay, outputs_stay;
    std::shared_ptr<void> work;
  };
  // What is kept for one set of input shapes and switches.
  struct Memory {
    std::vector<Shape> shapes;
    std::vector<bool> switches;
    std::vector<Slot> slots;  // of the fixed values, by value
    std::vector<bool> made;   // by step: whether what is fixed is there
    bool complete = false;    // whether all that is made can be used on every stream
    int numbers = 0;          // that slots have
    int runs = 0, attempts = 0;  // runs without a recording, once complete, and attempts to record one
    Ends last;                   // of the last of these runs, without owning them
    std::vector<bool> inputs_move, outputs_move;  // those that have been elsewhere than they were
    std::unique_ptr<Recording> recording;
  };
  class StepCall;
  class Execution;
  class Common;

  void Place();
  void FindPicks();
  void FusePatterns();
  void FuseSums();
  void FuseElementwise();
  void ReadConstants(const Settings& settings);
  std::vector<int> Uses() const;
  void Leave(const std::vector<bool>& gone);
  std::vector<std::vector<size_t>> Alike(const std::vector<size_t>& products) const;
  void FuseGatedProducts();
  void FuseProducts();
  bool JoinSteps(std::vector<size_t> steps, const Node& node, const Operator* op);
  void FuseAppends();
  void GiveOutputs();
  void FindLastUses();
  void FindKinds();
  void EndRun(Stream& stream, bool repeated);
  void WaitForRuns();
  void WaitForRepeats();
  std::vector<bool> ReadSwitches(Stream& stream, const std::vector<Tensor>& inputs) const;
  Memory& Recall(const std::vector<Tensor>& inputs, std::vector<bool> switches);
  void Enqueue(Memory& memory, Stream& stream, const std::vector<Tensor>& inputs, const MakeOutput& make_output);
  void Record(Memory& memory, const std::vector<Tensor>& inputs);
  bool RunRecorded(Memory& memory, Stream& stream, const std::vector<Tensor>& inputs, const MakeOutput& make_output);
  bool Repeat(Memory& memory, Stream& stream, const std::vector<Tensor>& inputs, const MakeOutput& make_output);

  Graph graph_;
  std::vector<size_t> switches_;  // inputs that are read before a run
  std::list<Node> joined_;  // nodes in place of several of the graph's
  std::vector<Step> steps_;
  std::vector<Slot> constants_;     // by value
  int constant_numbers_ = 0;        // so many different ones on the host
  std::vector<bool> fixed_;         // by value
  std::vector<int> output_index_;   // by value, -1 for none
  std::shared_ptr<Arena> constant_memory_ = std::make_shared<Arena>();
  bool recordable_ = true;  // whether the host needs nothing that a run computes, and nothing of it is remembered
  std::mutex mutex_;
  std::unique_ptr<Stream> recorder_;
  std::map<void*, std::shared_ptr<void>> ends_;  // by stream: an event, the end of the last run
  std::shared_ptr<void> last_repeat_;            // that of the stream of the last repeat
  std::list<Memory> memories_;                   // the latest first
};

}  // namespace cosetq::ep

#endif  // COSETQ_EP_PROGRAM_H_
