// Elementwise operators one after the other, as one pass over their operands: values that only the next of them uses never reach memory.

#ifndef COSETQ_EP_CHAIN_H_
#define COSETQ_EP_CHAIN_H_

#include <memory>
#include <vector>

#include "math.h"
#include "tensor.h"

namespace cosetq::ep {

// A step of a machine that holds values in a stack. Operands are pushed; other steps replace what they take, the first of it deepest.
struct Instruction {
  enum Kind : uint8_t { kLoad, kUnary, kBinary, kIsNaN, kSelect };
  Kind kind = kLoad;
  uint8_t which = 0;  // of the operands, of Unary or of Binary
  float alpha = 0, beta = 0;

  int takes() const { return kind == kLoad ? 0 : kind == kBinary ? 2 : kind == kSelect ? 3 : 1; }
};

// What a value is made of: inputs of the graph's nodes, by value, and the steps from them to it.
struct Chain {
  static constexpr size_t kMaxOperands = 6, kMaxSteps = 16;
  static constexpr int kMaxDepth = 4;

  std::vector<int> operands;
  std::vector<Instruction> steps;

  // Push what another chain computes, or an operand, or take what is there. False if that is too much, and the chain of no use.
  bool Push(const Chain& other);
  bool Push(int operand);
  bool Take(const Instruction& step);

 private:
  uint8_t Operand(int value);
  bool Fits() const;
};

struct Operator;
class State;
// The operator that runs a chain on its inputs, and its state.
const Operator& ChainOperator();
std::unique_ptr<State> ChainStateOf(std::vector<Instruction> steps);

// An operand as it lies: elements from one to the next along each dimension of the result.
struct ChainOperand {
  const void* data;
  bool truth;  // of bool
  Shape strides;
};
// Runs the chain of a state on operands.
void RunChain(Stream& stream, const State& chain, const std::vector<ChainOperand>& operands, const Tensor& y);

}  // namespace cosetq::ep

#endif  // COSETQ_EP_CHAIN_H_
