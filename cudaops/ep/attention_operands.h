// How the operators of attention read what they are given.

#ifndef COSETQ_EP_ATTENTION_OPERANDS_H_
#define COSETQ_EP_ATTENTION_OPERANDS_H_

#include <initializer_list>
#include <string>

#include "attention.h"

namespace cosetq::ep {

int64_t Quotient(const Call& call, int64_t whole, int64_t parts);
void Want(const Call& call, size_t input, const Shape& shape);
bool Wants(const Call& call, size_t output);

// Queries, keys or values as they come: [batch, heads, tokens, width], or [batch, tokens, heads * width].
struct Operand {
  const void* data = nullptr;
  int heads = 0, tokens = 0, width = 0;
  Places at;
};

Operand Read(Call& call, size_t input, int64_t heads);

// A mask or bias that is repeated along batches, heads and queries where it has one of them.
void ReadMask(const Call& call, size_t input, const Attention& a, Places* at, int* keys);

// Where keys or values lie once the new ones follow those of the past: in an output of the node, or where they came, if there is no past and
// nothing is done to them.
class Cache {
 public:
  // room: tokens of the result. past: an input, if it is given.
  Cache(Call& call, const Operand& fresh, size_t output, int room, const Tensor* past, const void* bias, bool turned);

  Arranged arranged;
  Places at;
  const void* data = nullptr;

 private:
  Tensor memory_;
};

// Has queries arranged to memory of their own, which is to be kept: with a bias, or turned.
Tensor ArrangeQueries(const Call& call, const Operand& q, const void* bias, bool turned, Attention* a, Arranged* out);

void Prepare(Call& call, const Arrangement& arrangement);

const Tensor* Given(const Call& call, size_t input);

// Of keys, and of values in the input that follows.
int PastTokens(const Call& call, size_t input, const Operand& k, const Operand& v);

float ScaleOf(const Call& call, int width);

void SetOperands(Attention* a, const Operand& q, const Cache& k, const Cache& v);

bool Has(const Node& node, size_t input);
const Value& ValueOf(const Graph& graph, const Node& node, size_t input);
std::string CheckTypes(const Graph& graph, const Node& node, std::initializer_list<size_t> alike);

}  // namespace cosetq::ep

#endif  // COSETQ_EP_ATTENTION_OPERANDS_H_
