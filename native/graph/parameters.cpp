#include "graph/parameters.h"

#include <algorithm>
#include <cmath>

#include "core/philox.h"

namespace panns::graph {
namespace {

size_t align_up(size_t x, size_t a) { return (x + a - 1) / a * a; }

constexpr double kTwoPi = 6.283185307179586;

// Uniform in 0..1, both excluded.
double uniform(uint32_t word) { return (word + 0.5) / 4294967296.0; }

// Calls make(words, out) for every four values; the rest of a last four is dropped.
template <typename Make>
void by_fours(std::vector<float>& values, const RandomStream& random, Make make) {
  for (size_t i = 0; i < values.size(); i += 4) {
    float four[4];
    make(random_words(random, i / 4), four);
    std::copy_n(four, std::min<size_t>(4, values.size() - i),
                values.begin() + static_cast<long>(i));
  }
}

void fill(std::vector<float>& values, const Parameters::Entry& e, const RandomStream& random) {
  const Shape& s = e.spec.shape;
  const int64_t taps = s.rank() == 4 ? s[2] * s[3] : 1;
  switch (e.init) {
    case ops::Init::zeros:
    case ops::Init::ones:
      std::fill(values.begin(), values.end(), e.init == ops::Init::ones ? 1.0f : 0.0f);
      return;
    case ops::Init::xavier: {
      const double bound = std::sqrt(6.0 / static_cast<double>((s[0] + s[1]) * taps));
      by_fours(values, random, [&](const PhiloxWords& words, float* out) {
        for (int k = 0; k < 4; ++k) {
          out[k] = static_cast<float>((uniform(words.word[k]) * 2 - 1) * bound);
        }
      });
      return;
    }
    case ops::Init::kaiming:
    case ops::Init::normal: {
      const double deviation =
          e.init == ops::Init::normal ? 0.01 : std::sqrt(2.0 / static_cast<double>(s[0] * taps));
      // Box and Muller's transform.
      by_fours(values, random, [&](const PhiloxWords& words, float* out) {
        for (int k = 0; k < 4; k += 2) {
          const double radius = deviation * std::sqrt(-2 * std::log(uniform(words.word[k])));
          const double angle = kTwoPi * uniform(words.word[k + 1]);
          out[k] = static_cast<float>(radius * std::cos(angle));
          out[k + 1] = static_cast<float>(radius * std::sin(angle));
        }
      });
      return;
    }
  }
}

}  // namespace

Parameters::Parameters(const Graph& g, backends::Device& device)
    : device_(device), stream_(device.stream()) {
  size_t offset = 0;
  for (const Kind kind : {Kind::parameter, Kind::buffer}) {
    for (const Value& v : g.values) {
      if (v.kind != kind) continue;
      const size_t bytes = align_up(device.bytes(v.spec), device.alignment());
      index_[v.name] = entries_.size();
      entries_.push_back({v.name, v.spec, kind == Kind::parameter, v.init, offset, bytes});
      offset += bytes;
    }
    if (kind == Kind::parameter) trainable_bytes_ = offset;
  }
  memory_ = device.allocate(offset);
}

const Parameters::Entry& Parameters::entry(const std::string& name) const {
  const auto it = index_.find(name);
  PANNS_CHECK(it != index_.end(), "ERR_PANNS_CHECKPOINT", name,
              "the model has no parameter of this name");
  return entries_[it->second];
}

void Parameters::set(const std::string& name, const float* values, int64_t count) {
  const Entry& e = entry(name);
  PANNS_CHECK(count == e.spec.shape.size(), "ERR_PANNS_SHAPE", name, "expected ",
              e.spec.shape.size(), " values (", e.spec.shape, "), got ", count);
  device_.import_value(*stream_, e.spec, values, address(e));
  stream_->synchronize();
  touch();
}

void Parameters::get(const std::string& name, float* values, int64_t count) const {
  const Entry& e = entry(name);
  PANNS_CHECK(count == e.spec.shape.size(), "ERR_PANNS_SHAPE", name, "expected room for ",
              e.spec.shape.size(), " values (", e.spec.shape, "), got ", count);
  device_.export_value(*stream_, e.spec, address(e), values);
  stream_->synchronize();
}

void Parameters::initialise(uint64_t seed) {
  std::vector<float> host;
  for (size_t k = 0; k < entries_.size(); ++k) {
    const Entry& e = entries_[k];
    host.assign(static_cast<size_t>(e.spec.shape.size()), 0.0f);
    fill(host, e, {seed, 0, static_cast<uint32_t>(k)});
    device_.import_value(*stream_, e.spec, host.data(), address(e));
  }
  stream_->synchronize();
  touch();
}

}  // namespace panns::graph
