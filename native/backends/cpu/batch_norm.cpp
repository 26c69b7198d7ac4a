#include "backends/cpu/batch_norm.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "backends/cpu/chunks.h"
#include "core/error.h"

namespace panns::cpu {
namespace {

constexpr int64_t kBlock = kChannelBlock;

// Count, mean and sum of squared deviations of a set, joined by Chan's formula.
struct Moments {
  double count = 0, mean = 0, deviations = 0;

  void join(double n, double m, double d) {
    const double total = count + n, delta = m - mean;
    mean += delta * n / total;
    deviations += d + delta * delta * count * n / total;
    count = total;
  }
};

// One parameter's numbers, before they are spread over lanes.
struct Coefficients {
  float mean = 0, scale = 0, beta = 0, c0 = 0, c1 = 0;

  void put(BatchNormLanes& lanes, int64_t i) const {
    lanes.mean[i] = mean;
    lanes.scale[i] = scale;
    lanes.beta[i] = beta;
    lanes.c0[i] = c0;
    lanes.c1[i] = c1;
  }
};

// How a map is cut. A map with C == 1 is N * F rows of T floats; any other is N * F * blocks
// panels, and a unit of a reduction takes several columns of one channel block.
struct Cut {
  Cut(const BatchNorm& norm, const Map& map)
      : norm(norm), map(map), out(batch_norm_output(norm, map)), by_rows(map.c == 1) {
    params = batch_norm_params(norm, map);
    values = map.n * map.c * map.t * map.f / params;
    columns = std::clamp<int64_t>(kChunk / map.panel(), 1, map.f);
    out_columns = norm.pool ? std::max<int64_t>(1, columns / 2) : columns;
    group = std::clamp<int64_t>(kChunk / map.panel(), 1, map.blocks());
  }

  int64_t column_groups() const { return (map.f + columns - 1) / columns; }
  int64_t out_column_groups() const { return (out.f + out_columns - 1) / out_columns; }
  int64_t sums() const {  // how many partial sums a reduction leaves
    if (by_rows) return map.n * map.f;
    return map.n * map.blocks() * std::max(column_groups(), out_column_groups());
  }
  int64_t param_of_row(int64_t row) const { return norm.axis == NormAxis::freq ? row % map.f : 0; }

  const BatchNorm& norm;
  const Map& map;
  const Map out;
  const bool by_rows;
  int64_t params, values, columns, out_columns, group;
};

struct Workspace {
  Workspace(const Cut& cut, std::byte* bytes)
      : sums(reinterpret_cast<BatchNormSums*>(bytes)),
        lanes(reinterpret_cast<BatchNormLanes*>(sums + cut.sums())),
        totals(reinterpret_cast<double*>(lanes + lanes_of(cut))) {}
  static int64_t bytes(const Cut& cut) {
    const int64_t totals = cut.norm.over_processes ? 2 * cut.params : 0;
    return cut.sums() * static_cast<int64_t>(sizeof(BatchNormSums)) +
           lanes_of(cut) * static_cast<int64_t>(sizeof(BatchNormLanes)) +
           totals * static_cast<int64_t>(sizeof(double));
  }
  static int64_t lanes_of(const Cut& cut) { return cut.by_rows ? cut.params : cut.map.blocks(); }
  BatchNormSums* sums;
  BatchNormLanes* lanes;  // one a channel block; by rows: one a parameter, its lanes all equal
  double* totals;         // over_processes: two sums a parameter, the first of all, then the second
};

// ---- one row of a map with C == 1: rows of 16, and a tail in a zero-padded buffer ----

void row_statistics(const BatchNormKernels& kernels, const float* x, int64_t count,
                    BatchNormSums* sums) {
  Moments all;
  if (count >= kBlock) {
    kernels.statistics(x, count / kBlock, 1, 0, sums);
    for (int64_t i = 0; i < kBlock; ++i) {
      all.join(static_cast<double>(count / kBlock), sums->a[i], sums->b[i]);
    }
  }
  for (int64_t i = count / kBlock * kBlock; i < count; ++i) all.join(1, x[i], 0);
  sums->a[0] = all.mean;
  sums->b[0] = all.deviations;
}

struct Tail {
  float x[kBlock] = {}, dy[kBlock] = {}, out[kBlock];
};

// Runs body(panel) on the whole rows of 16 and then on the tail.
template <typename Body>
void for_row(const BatchNormLanes* lanes, const float* x, const float* dy, float* out,
             int64_t count, Body&& body) {
  const int64_t whole = count / kBlock * kBlock;
  BatchNormPanel panel;
  panel.lanes = lanes;
  panel.x = x;
  panel.dy = dy;
  panel.out = out;
  panel.rows = count / kBlock;
  body(panel);
  if (whole == count) return;
  Tail tail;
  const size_t bytes = static_cast<size_t>(count - whole) * sizeof(float);
  std::memcpy(tail.x, x + whole, bytes);
  if (dy != nullptr) std::memcpy(tail.dy, dy + whole, bytes);
  panel.x = tail.x;
  panel.dy = tail.dy;
  panel.out = tail.out;
  panel.rows = 1;
  body(panel);
  if (out != nullptr) std::memcpy(out + whole, tail.out, bytes);
}

// ---- passes over the whole map ----

void reduce_statistics(ThreadPool& pool, const Cut& cut, const BatchNormKernels& kernels,
                       const float* x, BatchNormSums* sums) {
  const Map& map = cut.map;
  if (cut.by_rows) {
    pool.run(map.n * map.f, [&](int64_t row, int) {
      row_statistics(kernels, x + row * map.t, map.t, sums + row);
    });
    return;
  }
  const int64_t groups = cut.column_groups();
  pool.run(map.n * groups * map.blocks(), [&](int64_t unit, int) {
    const int64_t block = unit % map.blocks(), first = unit / map.blocks() % groups * cut.columns;
    const int64_t in = unit / map.blocks() / groups;
    kernels.statistics(x + map.at(in, block * kBlock, 0, first), map.t,
                       std::min(cut.columns, map.f - first), map.row(), sums + unit);
  });
}

// Calls body(param, moments) for every parameter, in parallel.
template <typename Body>
void join_statistics(ThreadPool& pool, const Cut& cut, const BatchNormSums* sums, Body&& body) {
  const Map& map = cut.map;
  if (cut.by_rows) {
    pool.run(cut.params, [&](int64_t param, int) {
      Moments all;
      for (int64_t row = param; row < map.n * map.f; row += cut.params) {
        all.join(static_cast<double>(map.t), sums[row].a[0], sums[row].b[0]);
      }
      body(param, all);
    });
    return;
  }
  const int64_t groups = cut.column_groups();
  pool.run(map.blocks(), [&](int64_t block, int) {
    Moments all[kBlock];
    for (int64_t chunk = 0; chunk < map.n * groups; ++chunk) {
      const BatchNormSums& s = sums[chunk * map.blocks() + block];
      const int64_t columns = std::min(cut.columns, map.f - chunk % groups * cut.columns);
      for (int64_t i = 0; i < kBlock; ++i) {
        all[i].join(static_cast<double>(columns * map.t), s.a[i], s.b[i]);
      }
    }
    for (int64_t i = 0; i < std::min(kBlock, map.c - block * kBlock); ++i) {
      body(block * kBlock + i, all[i]);
    }
  });
}

// The moments of every parameter over the rows of all processes. Sums of squares cancel, but in
// double: the mean may be a million deviations away.
template <typename Body>
void join_processes(ThreadPool& pool, const Cut& cut, const BatchNormProcesses& processes,
                    const Workspace& work, Body&& body) {
  double *first = work.totals, *second = first + cut.params;
  join_statistics(pool, cut, work.sums, [&](int64_t param, const Moments& m) {
    first[param] = m.count * m.mean;
    second[param] = m.deviations + m.count * m.mean * m.mean;
  });
  processes.sum(processes.context, work.totals, 2 * cut.params);
  const double count = static_cast<double>(cut.values) * processes.count;
  for (int64_t param = 0; param < cut.params; ++param) {
    const double mean = first[param] / count;
    const double deviations = second[param] - first[param] * mean;
    body(param, Moments{count, mean, deviations < 0 ? 0 : deviations});  // rounding; NaN stays
  }
}

void spread(const Cut& cut, const Workspace& work, int64_t param, const Coefficients& c) {
  if (!cut.by_rows) {
    c.put(work.lanes[param / kBlock], param % kBlock);
    return;
  }
  for (int64_t i = 0; i < kBlock; ++i) c.put(work.lanes[param], i);
}

// Zeros the lanes past the last channel, which spread never reaches.
void clear_padding(const Cut& cut, const Workspace& work) {
  if (!cut.by_rows) work.lanes[cut.map.blocks() - 1] = BatchNormLanes{};
}

DropoutRun drop_run(const Cut& cut, int64_t in, int64_t block, int64_t out_column) {
  const Dropout& drop = cut.norm.dropout;
  if (!drop.active()) return {};
  const Map& out = cut.out;
  const int64_t element = (in * out.t * out.f + out_column) * out.c + block * kBlock;
  return {drop.random, static_cast<uint64_t>(element / 4), static_cast<uint64_t>(out.f * out.c / 4),
          drop_threshold(drop.p), drop.scale()};
}

// The panel(s) behind output column `column` of one channel block. dy and out are left to the
// caller.
BatchNormPanel panel_at(const Cut& cut, const Workspace& work, const float* x, int64_t in,
                        int64_t block, int64_t column) {
  BatchNormPanel panel;
  panel.x = x + cut.map.at(in, block * kBlock, 0, cut.norm.pool ? 2 * column : column);
  panel.rows = cut.map.t;
  panel.column = cut.map.row();
  panel.lanes = work.lanes + block;
  panel.drop = drop_run(cut, in, block, column);
  return panel;
}

// Calls body(in, block, column) for `columns` columns of every image and channel block, several
// neighbouring blocks a unit.
template <typename Body>
void for_panels(ThreadPool& pool, const Cut& cut, int64_t columns, Body&& body) {
  const int64_t blocks = cut.map.blocks(), groups = (blocks + cut.group - 1) / cut.group;
  pool.run(cut.map.n * columns * groups, [&](int64_t unit, int) {
    const int64_t first = unit % groups * cut.group, column = unit / groups % columns;
    for (int64_t block = first; block < std::min(first + cut.group, blocks); ++block) {
      body(unit / groups / columns, block, column);
    }
  });
}

void forward(ThreadPool& pool, const Cut& cut, const BatchNormKernels& kernels,
             const Workspace& work, const float* x, float* y) {
  const Map& map = cut.map;
  if (cut.by_rows) {
    pool.run(map.n * map.f, [&](int64_t row, int) {
      for_row(work.lanes + cut.param_of_row(row), x + row * map.t, nullptr, y + row * map.t, map.t,
              [&](const BatchNormPanel& panel) { kernels.forward(cut.norm, panel); });
    });
    return;
  }
  for_panels(pool, cut, cut.out.f, [&](int64_t in, int64_t block, int64_t column) {
    BatchNormPanel panel = panel_at(cut, work, x, in, block, column);
    panel.out = y + cut.out.at(in, block * kBlock, 0, column);
    kernels.forward(cut.norm, panel);
  });
}

void reduce_backward(ThreadPool& pool, const Cut& cut, const BatchNormKernels& kernels,
                     const Workspace& work, const float* x, const float* dy) {
  const Map& map = cut.map;
  if (cut.by_rows) {
    pool.run(map.n * map.f, [&](int64_t row, int) {
      BatchNormSums lanes{};
      for_row(work.lanes + cut.param_of_row(row), x + row * map.t, dy + row * map.t, nullptr, map.t,
              [&](const BatchNormPanel& panel) { kernels.backward_sums(cut.norm, panel, &lanes); });
      work.sums[row].a[0] = work.sums[row].b[0] = 0;
      for (int64_t i = 0; i < kBlock; ++i) {
        work.sums[row].a[0] += lanes.a[i];
        work.sums[row].b[0] += lanes.b[i];
      }
    });
    return;
  }
  const int64_t groups = cut.out_column_groups();
  pool.run(map.n * groups * map.blocks(), [&](int64_t unit, int) {
    const int64_t block = unit % map.blocks();
    const int64_t first = unit / map.blocks() % groups * cut.out_columns;
    const int64_t in = unit / map.blocks() / groups;
    work.sums[unit] = BatchNormSums{};
    for (int64_t column = first; column < std::min(first + cut.out_columns, cut.out.f); ++column) {
      BatchNormPanel panel = panel_at(cut, work, x, in, block, column);
      panel.dy = dy + cut.out.at(in, block * kBlock, 0, column);
      kernels.backward_sums(cut.norm, panel, work.sums + unit);
    }
  });
}

// The two sums of one parameter.
void join_backward(const Cut& cut, const Workspace& work, int64_t param, double* sum_g,
                   double* sum_gx) {
  *sum_g = *sum_gx = 0;
  if (cut.by_rows) {
    for (int64_t row = param; row < cut.map.n * cut.map.f; row += cut.params) {
      *sum_g += work.sums[row].a[0];
      *sum_gx += work.sums[row].b[0];
    }
    return;
  }
  const int64_t blocks = cut.map.blocks();
  for (int64_t chunk = 0; chunk < cut.map.n * cut.out_column_groups(); ++chunk) {
    const BatchNormSums& s = work.sums[chunk * blocks + param / kBlock];
    *sum_g += s.a[param % kBlock];
    *sum_gx += s.b[param % kBlock];
  }
}

void apply_backward(ThreadPool& pool, const Cut& cut, const BatchNormKernels& kernels,
                    const Workspace& work, const float* x, const float* dy, float* dx) {
  const Map& map = cut.map;
  if (cut.by_rows) {
    pool.run(map.n * map.f, [&](int64_t row, int) {
      for_row(work.lanes + cut.param_of_row(row), x + row * map.t, dy + row * map.t,
              dx + row * map.t, map.t,
              [&](const BatchNormPanel& panel) { kernels.backward_apply(cut.norm, panel); });
    });
    return;
  }
  // With an odd F the pool drops the last column: it comes as one column more, without dy.
  const int64_t columns = cut.norm.pool ? (map.f + 1) / 2 : map.f;
  for_panels(pool, cut, columns, [&](int64_t in, int64_t block, int64_t column) {
    BatchNormPanel panel = panel_at(cut, work, x, in, block, column);
    if (column < cut.out.f) panel.dy = dy + cut.out.at(in, block * kBlock, 0, column);
    panel.out = dx + (panel.x - x);
    kernels.backward_apply(cut.norm, panel);
  });
}

float inverse_deviation(double variance, double eps) {
  return static_cast<float>(1.0 / std::sqrt(variance + eps));
}

// The statistics depend on x, which adds the two mean terms to dx.
void backward(ThreadPool& pool, const Cut& cut, const BatchNormBackward& a, const Workspace& work,
              Tier t) {
  const auto& kernels = batch_norm_kernels(t);
  reduce_backward(pool, cut, kernels, work, a.x, a.dy);
  const double values =
      static_cast<double>(cut.values) * (a.processes != nullptr ? a.processes->count : 1);
  const auto finish = [&](int64_t param, double sum_g, double sum_gx) {
    const double invstd = a.invstd[param], scale = invstd * a.gamma[param];
    Coefficients c{a.mean[param], static_cast<float>(scale), a.beta[param]};
    c.c0 = static_cast<float>(-scale * sum_g / values);
    c.c1 = static_cast<float>(-scale * invstd * invstd * sum_gx / values);
    spread(cut, work, param, c);
  };
  double *first = work.totals, *second = first + cut.params;
  pool.run(cut.params, [&](int64_t param, int) {
    double sum_g, sum_gx;
    join_backward(cut, work, param, &sum_g, &sum_gx);
    a.dgamma[param] = static_cast<float>(sum_gx * a.invstd[param]);
    a.dbeta[param] = static_cast<float>(sum_g);
    if (a.processes == nullptr) {
      finish(param, sum_g, sum_gx);
    } else {
      first[param] = sum_g;
      second[param] = sum_gx;
    }
  });
  if (a.processes != nullptr) {
    a.processes->sum(a.processes->context, work.totals, 2 * cut.params);
    for (int64_t param = 0; param < cut.params; ++param) {
      finish(param, first[param], second[param]);
    }
  }
  if (a.dx != nullptr) apply_backward(pool, cut, kernels, work, a.x, a.dy, a.dx);
}

void check(const BatchNorm& norm, const Map& map) {
  PANNS_CHECK(batch_norm_supported(norm, map), "ERR_PANNS_UNSUPPORTED", "batch_norm",
              "expected a map that the fused form takes (freq: C = 1; pool: C > 1, T and F >= 2; "
              "dropout: C > 1, C % 4 = 0), got (",
              map.n, ", ", map.c, ", ", map.t, ", ", map.f,
              "); run batch_norm, relu, pool and dropout one by one");
}

}  // namespace

int64_t batch_norm_params(const BatchNorm& norm, const Map& map) {
  return norm.axis == NormAxis::freq ? map.f : map.c;
}

Map batch_norm_output(const BatchNorm& norm, const Map& map) {
  return norm.pool ? Map{map.n, map.c, map.t / 2, map.f / 2} : map;
}

bool batch_norm_supported(const BatchNorm& norm, const Map& map) {
  if (norm.axis == NormAxis::freq && map.c != 1) return false;
  if (norm.pool && (map.c == 1 || map.t < 2 || map.f < 2)) return false;
  return !norm.dropout.active() || (map.c > 1 && map.c % 4 == 0);
}

int64_t batch_norm_workspace(const BatchNorm& norm, const Map& map) {
  return Workspace::bytes(Cut(norm, map));
}

void batch_norm_train(ThreadPool& pool, const BatchNorm& norm, const Map& map,
                      const BatchNormTrain& a, std::byte* workspace, Tier t) {
  check(norm, map);
  const Cut cut(norm, map);
  PANNS_CHECK(cut.values > 1, "ERR_PANNS_SHAPE", "batch_norm",
              "expected more than one value a parameter in training, got (", map.n, ", ", map.c,
              ", ", map.t, ", ", map.f, "); use a larger batch or longer clips");
  const auto& kernels = batch_norm_kernels(t);
  const Workspace work(cut, workspace);
  reduce_statistics(pool, cut, kernels, a.x, work.sums);
  clear_padding(cut, work);
  const auto finish = [&](int64_t param, const Moments& m) {
    const double momentum = norm.momentum;
    a.mean[param] = static_cast<float>(m.mean);
    a.invstd[param] = inverse_deviation(m.deviations / m.count, norm.eps);
    a.running_mean[param] =
        static_cast<float>((1 - momentum) * a.running_mean[param] + momentum * m.mean);
    a.running_var[param] = static_cast<float>((1 - momentum) * a.running_var[param] +
                                              momentum * m.deviations / (m.count - 1));
    spread(cut, work, param, {a.mean[param], a.invstd[param] * a.gamma[param], a.beta[param]});
  };
  if (a.processes == nullptr) {
    join_statistics(pool, cut, work.sums, finish);
  } else {
    join_processes(pool, cut, *a.processes, work, finish);
  }
  forward(pool, cut, kernels, work, a.x, a.y);
}

void batch_norm_eval(ThreadPool& pool, const BatchNorm& norm, const Map& map,
                     const BatchNormEval& a, std::byte* workspace, Tier t) {
  check(norm, map);
  const Cut cut(norm, map);
  const Workspace work(cut, workspace);
  clear_padding(cut, work);
  for (int64_t param = 0; param < cut.params; ++param) {
    const float invstd = inverse_deviation(a.running_var[param], norm.eps);
    spread(cut, work, param, {a.running_mean[param], invstd * a.gamma[param], a.beta[param]});
  }
  forward(pool, cut, batch_norm_kernels(t), work, a.x, a.y);
}

void batch_norm_backward(ThreadPool& pool, const BatchNorm& norm, const Map& map,
                         const BatchNormBackward& a, std::byte* workspace, Tier t) {
  check(norm, map);
  const Cut cut(norm, map);
  const Workspace work(cut, workspace);
  clear_padding(cut, work);
  for (int64_t param = 0; param < cut.params; ++param) {
    spread(cut, work, param, {a.mean[param], a.invstd[param] * a.gamma[param], a.beta[param]});
  }
  backward(pool, cut, a, work, t);
}

void batch_norm_eval_backward(ThreadPool& pool, const BatchNorm& norm, const Map& map,
                              const BatchNormEvalBackward& a, std::byte* workspace, Tier t) {
  check(norm, map);
  const Cut cut(norm, map);
  const Workspace work(cut, workspace);
  clear_padding(cut, work);
  const auto& kernels = batch_norm_kernels(t);
  for (int64_t param = 0; param < cut.params; ++param) {
    const float invstd = inverse_deviation(a.running_var[param], norm.eps);
    spread(cut, work, param, {a.running_mean[param], invstd * a.gamma[param], a.beta[param]});
  }
  if (a.dgamma != nullptr || a.dbeta != nullptr) {
    reduce_backward(pool, cut, kernels, work, a.x, a.dy);
    pool.run(cut.params, [&](int64_t param, int) {
      double sum_g, sum_gx;
      join_backward(cut, work, param, &sum_g, &sum_gx);
      const double invstd = inverse_deviation(a.running_var[param], norm.eps);
      if (a.dgamma != nullptr) a.dgamma[param] = static_cast<float>(sum_gx * invstd);
      if (a.dbeta != nullptr) a.dbeta[param] = static_cast<float>(sum_g);
    });
  }
  if (a.dx != nullptr) apply_backward(pool, cut, kernels, work, a.x, a.dy, a.dx);
}

}  // namespace panns::cpu
