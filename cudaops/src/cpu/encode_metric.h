// One group of each of many rows, coded in a metric, as the package quant specifies (groupCoder): a
// trial is a vector of rows with one gain; of every trial the later block is coded first, and its
// error moves the earlier one. Included after encode_lanes.h.

#ifndef COSETQ_CPU_ENCODE_METRIC_H_
#define COSETQ_CPU_ENCODE_METRIC_H_

#include "encode_lanes.h"

namespace cosetq {
namespace {

// Rows that are coded together: with all gains, their blocks fit the queue.
constexpr int64_t kStripRows = kChunkBlocks / schema::kMaxGains;
constexpr int kStripVectors = kStripRows / kLanes;
constexpr int kTrials = kStripVectors * schema::kMaxGains;
static_assert(kTrials * kLanes <= kChunkBlocks && kStripRows % kLanes == 0 && kTrials % kWide == 0);

struct RowVector {
  F x[schema::kGroup];
  F step;
  M used;
};

struct MetricTrial {
  F y[kEncodeDim];          // the block at work
  F error[schema::kGroup];  // of the decoded weights
  F step;                   // times the gain
  F inverse;
  F loss;
  U classes[kEncodeBlocks];  // of runs all in the first
  M used;
};

struct Strip {
  RowVector rows[kStripVectors];
  MetricTrial trials[kTrials];  // [gain][vector of rows]
  Queue queue;
  Blocks blocks;
};

// Finds the nearest point in the code to y of every trial; count is a multiple of kWide.
inline void CodeBlocks(const EncoderView& codec, int count, int b, Strip* strip) {
  for (int first = 0; first < count; first += kWide) {
    MetricTrial* trials = strip->trials + first;
    F y[kWide][kEncodeDim], unused;
    U point[kWide], classes[kWide];
    M beyond[kWide], inside[kWide];
    for (int i = 0; i < kWide; ++i) {
      F largest = {};
      for (int j = 0; j < kEncodeDim; ++j) {
        y[i][j] = trials[i].y[j] * trials[i].inverse + Splat(codec.centre[j]);
        largest = Max(largest, Abs(y[i][j]));
      }
      beyond[i] = Ge(largest, Splat(codec.reach_one + 2));
      point[i] = Nearest(y[i], &unused);
    }
    Digits(codec, point, classes, inside);
    memcpy(strip->blocks.point + first * kLanes, point, sizeof point);
    memcpy(strip->blocks.classes + first * kLanes, classes, sizeof classes);
    for (int i = 0; i < kWide; ++i)
      strip->queue.Push(y[i], trials[i].used & (beyond[i] | ~inside[i]), (first + i) * kLanes);
  }
  strip->queue.Clamp(codec, &strip->blocks);
  for (int t = 0; t < count; ++t)
    strip->trials[t].classes[b] = Load<U>(strip->blocks.classes + t * kLanes);
}

// Measures the error of block b of a trial, and moves the block before it.
inline void MeasureBlock(const EncoderView& codec, const float* metric, const F* x, U point, int b,
                         MetricTrial* trial) {
  const float* chol = metric;
  const float* feed = metric + schema::kGroup * schema::kGroup;
  F* e = trial->error;
  const int begin = b * kEncodeDim, end = begin + kEncodeDim;
  for (int j = 0; j < kEncodeDim; ++j) {
    const F v = Coordinate(point, j);
    e[begin + j] = x[begin + j] - trial->step * (v - Splat(codec.centre[j]));
  }
  F part = {};
  for (int j = begin; j < end; ++j) {
    F z = {};
    for (int i = j; i < schema::kGroup; ++i) z = z + e[i] * Splat(chol[i * schema::kGroup + j]);
    part = part + z * z;
  }
  trial->loss = trial->loss + part;
  if (b == 0) return;
  for (int j = 0; j < kEncodeDim; ++j) trial->y[j] = x[j];
  for (int i = begin; i < end; ++i) {
    for (int j = 0; j < kEncodeDim; ++j)
      trial->y[j] = trial->y[j] + e[i] * Splat(feed[i * schema::kGroup + j]);
  }
}

// Writes the best trial of every row of a vector.
inline void StoreRows(const EncoderView& codec, const MetricWork& work, const MetricTrial* trials,
                      int stride, const RowVector& rows, int64_t first, int count) {
  F loss = Splat(__builtin_inff()), error[schema::kGroup];
  memcpy(error, rows.x, sizeof error);
  U gain = {}, classes[kEncodeBlocks] = {};
  for (int g = 0; g < codec.gain_count; ++g) {
    const MetricTrial& t = trials[g * stride];
    const M better = Gt(loss, t.loss);
    loss = Select(better, t.loss, loss);
    gain = Select(better, SplatInt(static_cast<uint32_t>(g)), gain);
    for (int b = 0; b < kEncodeBlocks; ++b)
      classes[b] = Select(better, t.classes[b], classes[b]);
    for (int j = 0; j < schema::kGroup; ++j) error[j] = Select(better, t.error[j], error[j]);
  }
  for (int j = 0; j < schema::kGroup; ++j) {
    const F weights = rows.x[j] - error[j];
    float* to = work.weights + first * schema::kGroup + j;
    for (int lane = 0; lane < count; ++lane) to[lane * schema::kGroup] = weights[lane];
  }
  uint16_t* out = work.indices + first * EncodeSlots(codec);
  for (int lane = 0; lane < count; ++lane) {
    work.losses[first + lane] = loss[lane];
    work.gains[first + lane] = static_cast<uint8_t>(gain[lane]);
    if (codec.dim == 1) {
      StoreRuns(classes[0][lane], out);
      out += schema::kGroup;
      continue;
    }
    for (int m = 0; m < codec.levels; ++m) {
      for (int b = 0; b < kEncodeBlocks; ++b)
        *out++ = static_cast<uint16_t>(classes[b][lane] >> (8 * m) & 0xff);
    }
  }
}

inline void LoadRows(const MetricWork& work, int64_t first, int count, RowVector* rows) {
  alignas(64) float groups[kLanes * schema::kGroup] = {};
  alignas(64) float steps[kLanes] = {};
  memcpy(groups, work.x + first * schema::kGroup,
         sizeof(float) * schema::kGroup * static_cast<size_t>(count));
  memcpy(steps, work.steps + first, sizeof(float) * static_cast<size_t>(count));
  LoadTile(groups, rows->x);
  rows->step = Load<F>(steps);
  rows->used = FirstLanes(count);
}

// Runs: one vector of rows after the other, all gains of each.
void EncodeRunsInMetric(const EncoderView& codec, const MetricWork& work) {
  constexpr int kSize = schema::kGroup;
  const float* chol = work.metric;
  const float* feed = work.metric + kSize * kSize;
  for (int64_t first = 0; first < work.count; first += kLanes) {
    const int64_t left = work.count - first;
    const int count = static_cast<int>(left < kLanes ? left : kLanes);
    RowVector rows;
    LoadRows(work, first, count, &rows);
    MetricTrial trials[schema::kMaxGains];
    for (int g = 0; g < codec.gain_count; ++g) {
      MetricTrial& t = trials[g];
      t.step = rows.step * Splat(codec.gains[g]);
      t.inverse = Select(Gt(t.step, F{}), Splat(1) / t.step, F{});  // a step of 0: of zeros
      t.loss = F{};
      t.classes[0] = t.classes[1] = U{};
      F y[kSize];
      memcpy(y, rows.x, sizeof y);
      for (int b = kSize - 1; b >= 0; --b) {
        M outside = kNone;
        const F v =
            NearestInRun(codec, y[b] * t.inverse + Splat(codec.centre[0]), &outside);
        t.classes[0] |= RunClass(codec, v, b);
        t.error[b] = rows.x[b] - t.step * (v - Splat(codec.centre[0]));
        F z = {};
        for (int i = b; i < kSize; ++i) z = z + t.error[i] * Splat(chol[i * kSize + b]);
        t.loss = t.loss + z * z;
        for (int j = 0; j < b; ++j) y[j] = y[j] + t.error[b] * Splat(feed[b * kSize + j]);
      }
    }
    StoreRows(codec, work, trials, 1, rows, first, count);
  }
}

void EncodeInMetric(const EncoderView& codec, const MetricWork& work) {
  if (codec.dim == 1) return EncodeRunsInMetric(codec, work);
  Strip strip;
  for (int64_t first = 0; first < work.count; first += kStripRows) {
    const int64_t left = work.count - first;
    const int count = static_cast<int>(left < kStripRows ? left : kStripRows);
    const int vectors = (count + kLanes - 1) / kLanes;
    for (int v = 0; v < vectors; ++v) {
      const int rest = count - v * kLanes;
      LoadRows(work, first + v * kLanes, rest < kLanes ? rest : kLanes, strip.rows + v);
    }
    int trials = 0;
    for (int g = 0; g < codec.gain_count; ++g) {
      for (int v = 0; v < vectors; ++v) {
        const RowVector& rows = strip.rows[v];
        MetricTrial& t = strip.trials[trials++];
        memcpy(t.y, rows.x + kEncodeDim, sizeof t.y);
        memset(t.error, 0, sizeof t.error);
        t.step = rows.step * Splat(codec.gains[g]);
        t.inverse = Select(Gt(t.step, F{}), Splat(1) / t.step, F{});  // a step of 0: of zeros
        t.loss = F{};
        t.used = rows.used;
      }
    }
    for (int t = trials; t % kWide != 0; ++t) {
      memset(strip.trials[t].y, 0, sizeof strip.trials[t].y);
      strip.trials[t].inverse = F{};
      strip.trials[t].used = kNone;
    }
    const int padded = (trials + kWide - 1) / kWide * kWide;
    for (int b = kEncodeBlocks - 1; b >= 0; --b) {
      CodeBlocks(codec, padded, b, &strip);
      for (int t = 0; t < trials; ++t) {
        MeasureBlock(codec, work.metric, strip.rows[t % vectors].x,
                     Load<U>(strip.blocks.point + t * kLanes), b, strip.trials + t);
      }
    }
    for (int v = 0; v < vectors; ++v) {
      const int rest = count - v * kLanes;
      StoreRows(codec, work, strip.trials + v, vectors, strip.rows[v], first + v * kLanes,
                rest < kLanes ? rest : kLanes);
    }
  }
}

}  // namespace
}  // namespace cosetq

#endif  // COSETQ_CPU_ENCODE_METRIC_H_
