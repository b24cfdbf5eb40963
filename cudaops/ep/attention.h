// Attention of queries over keys and values, and what is done to those first.

#ifndef COSETQ_EP_ATTENTION_H_
#define COSETQ_EP_ATTENTION_H_

#include <stdexcept>

#include "operator.h"
#include "rotary.h"

namespace cosetq::ep {

// Where the numbers of a head at a token begin: elements from one batch, head and token to the next. Those of a head lie together.
struct Places {
  int64_t batch = 0, head = 0, token = 0;

  static Places ByHead(int64_t heads, int64_t tokens, int64_t width) { return {heads * tokens * width, tokens * width, width}; }
  static Places ByToken(int64_t heads, int64_t tokens, int64_t width) { return {heads * tokens * width, width, heads * width}; }
};

// How many tokens there are of each batch: as many as there is room for, unless one of these is given.
struct Lengths {
  const int32_t* last = nullptr;   // [batches] the last one
  const int64_t* count = nullptr;  // [batches]
};

// A dimension as the kernels count.
inline int Extent(int64_t n) {
  if (n < 0 || n > INT32_MAX) throw std::invalid_argument("attention over " + std::to_string(n) + " elements");
  return static_cast<int>(n);
}

// softmax(mask(scale q k^T)) v. All of one type, float or float16; sums are float.
struct Attention {
  int batches = 0, heads = 0, kv_heads = 0, queries = 0, keys = 0;
  int width = 0, value_width = 0;  // of a head
  const void *q = nullptr, *k = nullptr, *v = nullptr;
  void* y = nullptr;
  Places q_at, k_at, v_at, y_at;
  int64_t k_step = 1;           // from one number of a key to the next; those of one place lie together if it is not 1
  float scale = 1, cap = 0;     // scores become cap * tanh(score / cap), unless cap is 0
  Lengths lengths;              // of the keys
  bool causal = false;          // a query sees no key after its own
  int past = 0;                 // keys ahead of the first query's, -1 for as many as the batch has more than queries, or fewer
  int window = 0;               // a query sees that many keys up to its own, unless 0
  enum { kNone, kAdd, kKeep, kPadding } mask_kind = kNone;
  const void* mask = nullptr;   // kAdd: of the tensors' type; kKeep: bool; kPadding: int32, none above 0 adds the filter
  Places mask_at;               // "token" is a query
  int mask_step = 1;            // from one key to the next; 0 for one number for all keys
  int mask_keys = 0;            // those that follow are hidden
  float filter = 0;
  const void* sink = nullptr;   // [heads]: a score beside those of the keys, without a value
  bool zero_sink = false;       // such a score of 0
  float empty = 0;              // the result of a query that sees no key
  bool nan_is_zero = false;     // that of one with scores that are no numbers is 0, and NaN otherwise
};

void Attend(Call& call, Type type, const Attention& a);

// How often each kind of kernel was started, see cosetq/ep.h.
struct Attentions {
  int64_t rows, few, tiles, groups;
};
Attentions TotalAttentions();

// softmax(scale q k^T + mask) v of a graph that has it in pieces: inputs are q, k^T (or k, where "across" is 0), v and perhaps the mask, of three
// or four dimensions.
const Operator& MatchedAttention();

// What becomes of the queries, keys or values of a call before they are used: new tokens get a bias, or are turned by the angle of their
// position, and follow those of the past.
struct Arranged {
  const void* from = nullptr;  // null where there is nothing to do
  Places from_at;
  void* to = nullptr;          // [batches, heads, room, width]
  int heads = 0, width = 0, added = 0, room = 0;
  bool cache = false;          // new tokens follow those of the past, else they are all there is
  const void* past = nullptr;  // [batches, heads, past_room, width]; may be where the result is
  int past_room = 0;
  const void* bias = nullptr;  // [heads * width]
  bool turned = false;
};

struct Arrangement {
  int batches = 0;
  Arranged parts[3];
  Lengths lengths;  // with the new tokens; without them the past is full
  bool prompt = false;  // there is no past
  Angles angles = {};
  const int64_t* position = nullptr;  // [batches, added], or null for one after the other
};

void Arrange(Stream& stream, Type type, const Arrangement& a);

// What keeps keys from being seen, with a bias of scores or without, as one mask that is added.
struct Padding {
  int batches = 0, heads = 1, queries = 1, keys = 0;  // of the mask that is made
  const int32_t* keep = nullptr;  // those not above 0 get the filter; or, of lengths, the number of keys of each batch that do not
  bool lengths = false;
  int64_t keep_batch = 0, keep_query = 0;  // from one batch and query to the next
  float filter = 0;
  const void* bias = nullptr;  // null where there is none
  Places bias_at;              // "token" is a query; keys lie together
  int bias_keys = 0;           // those that follow are hidden
  void* to = nullptr;
};

void MakeMask(Stream& stream, Type type, const Padding& p);

}  // namespace cosetq::ep

#endif  // COSETQ_EP_ATTENTION_H_
