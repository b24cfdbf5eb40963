// What is done to queries, keys and values ahead of attention.

#include <algorithm>
#include <iterator>

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
  int runs;       // of all batches
  bool in_place;  // the past is there already, and only new tokens are written
};

// kRun numbers of a head that lie together.
template <typename T, int kRun>
struct alignas(sizeof(T) * kRun) Run {
  T of[kRun];

  COSETQ_HD static const Run& At(const void* first, int64_t i) { return *reinterpret_cast<const Run*>(static_cast<const T*>(first) + i); }
};

template <typename T, int kRun>
struct ArrangeKernel {
  Arrangement a;
  Part<T> q, k, v;

  COSETQ_HD int Past(int batch, const Part<T>& p) const {
    if (a.prompt) return 0;
    if (a.lengths.last != nullptr) return Clamp(int64_t{a.lengths.last[batch]} + 1 - p.a.added, p.a.cache ? p.a.room - p.a.added : INT32_MAX);
    return p.a.past_room;
  }

  COSETQ_HD Run<T, kRun> New(const Part<T>& p, int batch, int head, int token, int past, int d) const {
    const T* from = static_cast<const T*>(p.a.from) + batch * p.a.from_at.batch + head * p.a.from_at.head + token * p.a.from_at.token;
    Run<T, kRun> x = Run<T, kRun>::At(from, d);
    if (p.a.bias != nullptr) {
      const Run<T, kRun> bias = Run<T, kRun>::At(p.a.bias, static_cast<int64_t>(head) * p.a.width + d);
COSETQ_UNROLL
      for (int e = 0; e < kRun; ++e) x.of[e] = FromFloat<T>(ToFloat(x.of[e]) + ToFloat(bias.of[e]));
    }
    if (p.a.bias == nullptr && p.a.turned && d < a.angles.turned)
      TurnRun(a.angles, from, d, a.position != nullptr ? a.position[static_cast<int64_t>(batch) * p.a.added + token] : past + token, &x);
    return x;
  }

  // Turns a run, whose pairs are another one, or in itself.
  COSETQ_HD static void TurnRun(const Angles& angles, const T* head, int d, int64_t position, Run<T, kRun>* x) {
    if constexpr (kRun == 1) {
      x->of[0] = Turned(angles, head, d, position);
    } else if (angles.interleaved || position < 0 || position >= angles.positions) {
COSETQ_UNROLL
      for (int e = 0; e < kRun; ++e) x->of[e] = Turned(angles, head, d + e, position);
    } else {
      const int half = angles.turned / 2;
      const bool first = d < half;
      const int64_t at = position * half + (first ? d : d - half);
      const Run<T, kRun> other = Run<T, kRun>::At(head, first ? d + half : d - half), cosine = Run<T, kRun>::At(angles.cosine, at),
                         sine = Run<T, kRun>::At(angles.sine, at);
COSETQ_UNROLL
      for (int e = 0; e < kRun; ++e) x->of[e] = Turn<T>(first, ToFloat(x->of[e]), ToFloat(other.of[e]), ToFloat(cosine.of[e]), ToFloat(sine.of[e]));
    }
  }

  COSETQ_HD void Write(const Part<T>& p, int i) const {
    const int rest = p.by_width.Of(i), d = (i - rest * (p.a.width / kRun)) * kRun;
    const int line = p.by_tokens.Of(rest);
    int token = rest - line * p.tokens;
    const int batch = p.by_heads.Of(line), head = line - batch * p.a.heads;
    const int past = p.a.cache || p.a.turned ? Past(batch, p) : 0;
    const int before = p.a.cache ? past : 0;
    if (p.in_place) token += before;
    Run<T, kRun> out = {};
    if (token < before) {
      out = Run<T, kRun>::At(p.a.past, (static_cast<int64_t>(line) * p.a.past_room + token) * p.a.width + d);
    } else if (token < before + p.a.added) {
      out = New(p, batch, head, token - before, past, d);
    }
    *reinterpret_cast<Run<T, kRun>*>(static_cast<T*>(p.a.to) + (static_cast<int64_t>(line) * p.a.room + token) * p.a.width + d) = out;
  }

  COSETQ_HD void operator()(int i) const {
    if (i < q.runs) {
      Write(q, i);
    } else if (i - q.runs < k.runs) {
      Write(k, i - q.runs);
    } else {
      Write(v, i - q.runs - k.runs);
    }
  }
};

template <typename T>
Part<T> PartOf(const Arranged& a, int batches, int run) {
  Part<T> p = {};
  p.a = a;
  if (a.from == nullptr) return p;
  p.in_place = a.cache && a.past == a.to;
  p.tokens = p.in_place ? a.added : a.room;
  p.runs = CheckedCount(int64_t{batches} * a.heads * p.tokens * a.width) / run;
  if (p.runs == 0) return p;
  p.by_width = Divisor(a.width / run);
  p.by_tokens = Divisor(p.tokens);
  p.by_heads = Divisor(a.heads);
  return p;
}

template <typename T, int kRun>
void LaunchRuns(Stream& stream, const Arrangement& a) {
  const ArrangeKernel<T, kRun> f{a, PartOf<T>(a.parts[0], a.batches, kRun), PartOf<T>(a.parts[1], a.batches, kRun), PartOf<T>(a.parts[2], a.batches, kRun)};
  ForEach(stream, int64_t{f.q.runs} + f.k.runs + f.v.runs, f);
}

template <typename T>
void LaunchArrange(Stream& stream, const Arrangement& a) {
  constexpr int kRun = 16 / sizeof(T);
  const auto lies = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
  const bool whole = std::all_of(std::begin(a.parts), std::end(a.parts), [&](const Arranged& p) {
    if (p.from == nullptr) return true;
    const bool turns = !p.turned || (a.angles.turned % (2 * kRun) == 0 && lies(a.angles.cosine) && lies(a.angles.sine));
    return turns && (p.width | p.from_at.batch | p.from_at.head | p.from_at.token) % kRun == 0 && lies(p.from) && lies(p.to) && lies(p.past) && lies(p.bias);
  });
  (whole ? LaunchRuns<T, kRun> : LaunchRuns<T, 1>)(stream, a);
}

template <typename T>
struct MaskKernel {
  Padding p;
  COSETQ_HD void operator()(int i) const {
    const int key = i % p.keys, line = i / p.keys, query = line % p.queries, rest = line / p.queries, head = rest % p.heads, batch = rest / p.heads;
    const bool seen = p.lengths ? key < p.keep[batch] : p.keep[batch * p.keep_batch + query * p.keep_query + key] > 0;
    float value = seen ? 0 : p.filter;
    if (p.bias != nullptr)
      value += key < p.bias_keys ? ToFloat(static_cast<const T*>(p.bias)[batch * p.bias_at.batch + head * p.bias_at.head + query * p.bias_at.token + key]) : -INFINITY;
    static_cast<T*>(p.to)[i] = FromFloat<T>(value);
  }
};

template <typename T>
void LaunchMask(Stream& stream, const Padding& p) {
  ForEach(stream, int64_t{p.batches} * p.heads * p.queries * p.keys, MaskKernel<T>{p});
}

}  // namespace

void MakeMask(Stream& stream, Type type, const Padding& p) {
  if (type == Type::kHalf) return LaunchMask<Half>(stream, p);
  LaunchMask<float>(stream, p);
}

void Arrange(Stream& stream, Type type, const Arrangement& a) {
  if (type == Type::kHalf) return LaunchArrange<Half>(stream, a);
  LaunchArrange<float>(stream, a);
}

}  // namespace cosetq::ep
