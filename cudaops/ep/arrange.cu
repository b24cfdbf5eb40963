// What is done to queries, keys and values ahead of attention.

#include "attention.h"
#include "launch.h"

namespace cosetq::ep {
namespace {

COSETQ_HD int Clamp(int64_t n, int most) { return n < 0 ? 0 : n < most ? static_cast<int>(n) : most; }

template <typename T>
struct Part {
  Arranged a;
  Divisor by_width, by_tokens, by_heads;
  int tokens;     // that are written
  int elements;   // of all batches
  bool in_place;  // the past is there already, and only new tokens are written
};

template <typename T>
struct ArrangeKernel {
  Arrangement a;
  Part<T> q, k, v;

  COSETQ_HD int Past(int batch, const Part<T>& p) const {
    if (a.prompt) return 0;
    if (a.lengths.last != nullptr) return Clamp(int64_t{a.lengths.last[batch]} + 1 - p.a.added, p.a.cache ? p.a.room - p.a.added : INT32_MAX);
    return p.a.past_room;
  }

  COSETQ_HD T New(const Part<T>& p, int batch, int head, int token, int past, int d) const {
    const T* from = static_cast<const T*>(p.a.from) + batch * p.a.from_at.batch + head * p.a.from_at.head + token * p.a.from_at.token;
    if (p.a.bias != nullptr) return FromFloat<T>(ToFloat(from[d]) + ToFloat(static_cast<const T*>(p.a.bias)[head * p.a.width + d]));
    if (!p.a.turned || d >= a.angles.turned) return from[d];
    return Turned(a.angles, from, d, a.position != nullptr ? a.position[static_cast<int64_t>(batch) * p.a.added + token] : past + token);
  }

  COSETQ_HD void Write(const Part<T>& p, int i) const {
    const int rest = p.by_width.Of(i), d = i - rest * p.a.width;
    const int line = p.by_tokens.Of(rest);
    int token = rest - line * p.tokens;
    const int batch = p.by_heads.Of(line), head = line - batch * p.a.heads;
    const int past = p.a.cache || p.a.turned ? Past(batch, p) : 0;
    const int before = p.a.cache ? past : 0;
    if (p.in_place) token += before;
    T* to = static_cast<T*>(p.a.to) + (static_cast<int64_t>(line) * p.a.room + token) * p.a.width + d;
    if (token < before) {
      *to = static_cast<const T*>(p.a.past)[(static_cast<int64_t>(line) * p.a.past_room + token) * p.a.width + d];
    } else if (token < before + p.a.added) {
      *to = New(p, batch, head, token - before, past, d);
    } else {
      *to = FromFloat<T>(0);
    }
  }

  COSETQ_HD void operator()(int i) const {
    if (i < q.elements) {
      Write(q, i);
    } else if (i - q.elements < k.elements) {
      Write(k, i - q.elements);
    } else {
      Write(v, i - q.elements - k.elements);
    }
  }
};

template <typename T>
Part<T> PartOf(const Arranged& a, int batches) {
  Part<T> p = {};
  p.a = a;
  if (a.from == nullptr) return p;
  p.in_place = a.cache && a.past == a.to;
  p.tokens = p.in_place ? a.added : a.room;
  p.elements = CheckedCount(int64_t{batches} * a.heads * p.tokens * a.width);
  if (p.elements == 0) return p;
  p.by_width = Divisor(a.width);
  p.by_tokens = Divisor(p.tokens);
  p.by_heads = Divisor(a.heads);
  return p;
}

template <typename T>
void LaunchArrange(Stream& stream, const Arrangement& a) {
  const ArrangeKernel<T> f{a, PartOf<T>(a.parts[0], a.batches), PartOf<T>(a.parts[1], a.batches), PartOf<T>(a.parts[2], a.batches)};
  ForEach(stream, int64_t{f.q.elements} + f.k.elements + f.v.elements, f);
}

}  // namespace

void Arrange(Stream& stream, Type type, const Arrangement& a) {
  if (type == Type::kHalf) return LaunchArrange<Half>(stream, a);
  LaunchArrange<float>(stream, a);
}

}  // namespace cosetq::ep
