#include "convolve.h"

#include <algorithm>
#include <cstring>

namespace cudnn_emulator {
namespace {

typedef float Lanes __attribute__((vector_size(32), aligned(4)));

constexpr int64_t kColumns = 16;  // of a panel: two vectors of eight
constexpr int64_t kRows = 6;      // twelve sums in registers, of sixteen
constexpr int64_t kPixels = 256;  // unrolled at a time, for the second-level cache

// b (rows, columns) as panels of kColumns columns, each with its rows one after another.
Values panels_of(const float* b, int64_t rows, int64_t columns, int64_t stride) {
  const int64_t panels = (columns + kColumns - 1) / kColumns;
  Values out(static_cast<size_t>(panels * rows * kColumns));
  for (int64_t p = 0; p < panels; ++p) {
    const auto width = static_cast<size_t>(std::min(kColumns, columns - p * kColumns));
    for (int64_t i = 0; i < rows; ++i) {
      std::memcpy(&out[static_cast<size_t>((p * rows + i) * kColumns)],
                  b + i * stride + p * kColumns, width * sizeof(float));
    }
  }
  return out;
}

template <int64_t Rows>
inline __attribute__((always_inline)) void tile(int64_t depth, const float* a, int64_t lda,
                                                const float* panel, float* c, int64_t ldc,
                                                int64_t width) {
  Lanes sum[Rows][2] = {};
  for (int64_t k = 0; k < depth; ++k) {
    const auto* b = reinterpret_cast<const Lanes*>(panel + k * kColumns);
    for (int64_t i = 0; i < Rows; ++i) {
      const float x = a[i * lda + k];
      sum[i][0] += x * b[0];
      sum[i][1] += x * b[1];
    }
  }
  for (int64_t i = 0; i < Rows; ++i) {
    std::memcpy(c + i * ldc, sum[i], static_cast<size_t>(width) * sizeof(float));
  }
}

// c (rows, columns) = a (rows, depth) times b.
__attribute__((target_clones("arch=haswell", "default"))) void multiply(int64_t rows, int64_t depth,
                                                                        int64_t columns,
                                                                        const float* a, int64_t lda,
                                                                        const Values& b, float* c,
                                                                        int64_t ldc) {
  for (int64_t j = 0; j < columns; j += kColumns) {
    const float* panel = b.data() + j * depth;
    const int64_t width = std::min(kColumns, columns - j);
    int64_t i = 0;
    for (; i + kRows <= rows; i += kRows) {
      tile<kRows>(depth, a + i * lda, lda, panel, c + i * ldc + j, ldc, width);
    }
    for (; i < rows; ++i) tile<1>(depth, a + i * lda, lda, panel, c + i * ldc + j, ldc, width);
  }
}

// Calls body(window, input pixel) for the places of an output pixel's window inside the input.
template <typename Body>
void each_tap(const Geometry& g, int64_t pixel, const Body& body) {
  const int64_t ow = pixel % g.out[1], oh = pixel / g.out[1] % g.out[0];
  const int64_t n = pixel / (g.out[0] * g.out[1]);
  for (int64_t r = 0; r < g.kernel[0]; ++r) {
    const int64_t h = oh * g.stride[0] - g.pad[0] + r * g.dilation[0];
    if (h < 0 || h >= g.in[0]) continue;
    for (int64_t s = 0; s < g.kernel[1]; ++s) {
      const int64_t w = ow * g.stride[1] - g.pad[1] + s * g.dilation[1];
      if (w < 0 || w >= g.in[1]) continue;
      body(r * g.kernel[1] + s, (n * g.in[0] + h) * g.in[1] + w);
    }
  }
}

struct Group {
  int64_t c, k, depth;  // channels in and out, and values of a window
  explicit Group(const Geometry& g) : c(g.c / g.groups), k(g.k / g.groups), depth(g.window() * c) {}
};

bool is_depthwise(const Group& group) { return group.c == 1 && group.k == 1; }

// The windows of some output pixels as rows (r, s, c).
void unroll(const Geometry& g, const Group& group, const Values& x, int64_t which, int64_t first,
            int64_t count, Values& rows) {
  rows.assign(static_cast<size_t>(count * group.depth), 0.0f);
  for (int64_t i = 0; i < count; ++i) {
    each_tap(g, first + i, [&](int64_t tap, int64_t pixel) {
      std::memcpy(&rows[static_cast<size_t>(i * group.depth + tap * group.c)],
                  &x[static_cast<size_t>(pixel * g.c + which * group.c)],
                  static_cast<size_t>(group.c) * sizeof(float));
    });
  }
}

Values transposed(const float* a, int64_t rows, int64_t columns, int64_t stride) {
  Values out(static_cast<size_t>(rows * columns));
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      out[static_cast<size_t>(j * rows + i)] = a[i * stride + j];
    }
  }
  return out;
}

}  // namespace

Values forward(const Geometry& g, const Values& x, const Values& w) {
  const Group group(g);
  Values y(static_cast<size_t>(g.pixels() * g.k));
  if (is_depthwise(group)) {
    const Values taps = transposed(w.data(), g.k, g.window(), g.window());
    for (int64_t i = 0; i < g.pixels(); ++i) {
      float* to = &y[static_cast<size_t>(i * g.k)];
      each_tap(g, i, [&](int64_t tap, int64_t pixel) {
        const float *from = &x[static_cast<size_t>(pixel * g.c)],
                    *by = &taps[static_cast<size_t>(tap * g.k)];
        for (int64_t c = 0; c < g.c; ++c) to[c] += from[c] * by[c];
      });
    }
    return y;
  }
  Values rows;
  for (int64_t q = 0; q < g.groups; ++q) {
    const Values filter = transposed(&w[static_cast<size_t>(q * group.k * group.depth)], group.k,
                                     group.depth, group.depth);
    const Values panels = panels_of(filter.data(), group.depth, group.k, group.k);
    for (int64_t first = 0; first < g.pixels(); first += kPixels) {
      const int64_t count = std::min(kPixels, g.pixels() - first);
      unroll(g, group, x, q, first, count, rows);
      multiply(count, group.depth, group.k, rows.data(), group.depth, panels,
               &y[static_cast<size_t>(first * g.k + q * group.k)], g.k);
    }
  }
  return y;
}

Values backward_data(const Geometry& g, const Values& w, const Values& dy) {
  const Group group(g);
  Values dx(static_cast<size_t>(g.n * g.in[0] * g.in[1] * g.c));
  if (is_depthwise(group)) {
    const Values taps = transposed(w.data(), g.k, g.window(), g.window());
    for (int64_t i = 0; i < g.pixels(); ++i) {
      const float* from = &dy[static_cast<size_t>(i * g.k)];
      each_tap(g, i, [&](int64_t tap, int64_t pixel) {
        float* to = &dx[static_cast<size_t>(pixel * g.c)];
        const float* by = &taps[static_cast<size_t>(tap * g.k)];
        for (int64_t c = 0; c < g.c; ++c) to[c] += from[c] * by[c];
      });
    }
    return dx;
  }
  Values rows(static_cast<size_t>(kPixels * group.depth));
  for (int64_t q = 0; q < g.groups; ++q) {
    const Values panels = panels_of(&w[static_cast<size_t>(q * group.k * group.depth)], group.k,
                                    group.depth, group.depth);
    for (int64_t first = 0; first < g.pixels(); first += kPixels) {
      const int64_t count = std::min(kPixels, g.pixels() - first);
      multiply(count, group.k, group.depth, &dy[static_cast<size_t>(first * g.k + q * group.k)],
               g.k, panels, rows.data(), group.depth);
      for (int64_t i = 0; i < count; ++i) {
        each_tap(g, first + i, [&](int64_t tap, int64_t pixel) {
          const float* from = &rows[static_cast<size_t>(i * group.depth + tap * group.c)];
          float* to = &dx[static_cast<size_t>(pixel * g.c + q * group.c)];
          for (int64_t c = 0; c < group.c; ++c) to[c] += from[c];
        });
      }
    }
  }
  return dx;
}

Values backward_filter(const Geometry& g, const Values& x, const Values& dy) {
  const Group group(g);
  // Sums over a whole map: in double between the blocks of pixels.
  std::vector<double> sums(static_cast<size_t>(g.k * group.depth));
  if (is_depthwise(group)) {
    for (int64_t i = 0; i < g.pixels(); ++i) {
      const float* from = &dy[static_cast<size_t>(i * g.k)];
      each_tap(g, i, [&](int64_t tap, int64_t pixel) {
        const float* by = &x[static_cast<size_t>(pixel * g.c)];
        for (int64_t c = 0; c < g.c; ++c) {
          sums[static_cast<size_t>(c * g.window() + tap)] += from[c] * by[c];
        }
      });
    }
    return Values(sums.begin(), sums.end());
  }
  Values rows, part(static_cast<size_t>(group.k * group.depth));
  for (int64_t q = 0; q < g.groups; ++q) {
    double* to = &sums[static_cast<size_t>(q * group.k * group.depth)];
    for (int64_t first = 0; first < g.pixels(); first += kPixels) {
      const int64_t count = std::min(kPixels, g.pixels() - first);
      unroll(g, group, x, q, first, count, rows);
      const Values panels = panels_of(rows.data(), count, group.depth, group.depth);
      const Values columns =
          transposed(&dy[static_cast<size_t>(first * g.k + q * group.k)], count, group.k, g.k);
      multiply(group.k, count, group.depth, columns.data(), count, panels, part.data(),
               group.depth);
      for (size_t i = 0; i < part.size(); ++i) to[i] += part[i];
    }
  }
  return Values(sums.begin(), sums.end());
}

}  // namespace cudnn_emulator
