#include "graph/parameters.h"

#include <cmath>

#include "core/philox.h"

namespace panns::graph {
namespace {

size_t align_up(size_t x, size_t a) { return (x + a - 1) / a * a; }

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
    const Shape& s = e.spec.shape;
    host.assign(static_cast<size_t>(s.size()), e.init == ops::Init::ones ? 1.0f : 0.0f);
    if (e.init == ops::Init::xavier) {
      const int64_t taps = s.rank() == 4 ? s[2] * s[3] : 1;
      const double bound = std::sqrt(6.0 / static_cast<double>((s[0] + s[1]) * taps));
      for (size_t i = 0; i < host.size(); ++i) {
        const uint32_t u = random_word({seed, 0, static_cast<uint32_t>(k)}, i);
        host[i] = static_cast<float>(((u + 0.5) / 4294967296.0 * 2 - 1) * bound);
      }
    }
    device_.import_value(*stream_, e.spec, host.data(), address(e));
  }
  stream_->synchronize();
  touch();
}

}  // namespace panns::graph
