#include "ops/attr_map.h"

#include <cmath>

#include "core/error.h"

namespace panns::ops {

const AttrMap::Item* AttrMap::take(const std::string& name) {
  taken_[name] = true;
  const auto it = items_.find(name);
  return it == items_.end() ? nullptr : &it->second;
}

void AttrMap::bad(const std::string& name, const std::string& expected) const {
  std::string got = "a list";
  const Item& item = items_.at(name);
  if (const auto* d = std::get_if<double>(&item)) got = cat(*d);
  if (const auto* b = std::get_if<bool>(&item)) got = *b ? "true" : "false";
  if (const auto* s = std::get_if<std::string>(&item)) got = "'" + *s + "'";
  throw Error("ERR_PANNS_SPEC", where_, cat("expected ", name, " to be ", expected, ", got ", got));
}

double AttrMap::number(const std::string& name, double fallback, double low, double high) {
  const Item* item = take(name);
  if (item == nullptr) return fallback;
  const auto* d = std::get_if<double>(item);
  if (d == nullptr || !(*d >= low && *d <= high)) {
    bad(name, cat("a number in ", low, "..", high));
  }
  return *d;
}

int64_t AttrMap::integer(const std::string& name, int64_t fallback, int64_t low, int64_t high) {
  const Item* item = take(name);
  if (item == nullptr) return fallback;
  const auto* d = std::get_if<double>(item);
  if (d == nullptr || *d != std::floor(*d) || !(*d >= static_cast<double>(low)) ||
      !(*d <= static_cast<double>(high))) {
    bad(name, cat("an integer in ", low, "..", high));
  }
  return static_cast<int64_t>(*d);
}

bool AttrMap::flag(const std::string& name, bool fallback) {
  const Item* item = take(name);
  if (item == nullptr) return fallback;
  const auto* b = std::get_if<bool>(item);
  if (b == nullptr) bad(name, "true or false");
  return *b;
}

int AttrMap::choice(const std::string& name, int fallback, const std::vector<std::string>& names) {
  const Item* item = take(name);
  if (item == nullptr) return fallback;
  std::string list;
  const auto* s = std::get_if<std::string>(item);
  for (size_t i = 0; i < names.size(); ++i) {
    if (s != nullptr && *s == names[i]) return static_cast<int>(i);
    list += (i ? ", '" : "'") + names[i] + "'";
  }
  bad(name, "one of " + list);
}

std::array<int64_t, 2> AttrMap::pair(const std::string& name, std::array<int64_t, 2> fallback,
                                     int64_t low, int64_t high) {
  const Item* item = take(name);
  if (item == nullptr) return fallback;
  const auto valid = [&](double d) {
    return d == std::floor(d) && d >= static_cast<double>(low) && d <= static_cast<double>(high);
  };
  if (const auto* d = std::get_if<double>(item); d != nullptr && valid(*d)) {
    return {static_cast<int64_t>(*d), static_cast<int64_t>(*d)};
  }
  const auto* list = std::get_if<std::vector<double>>(item);
  if (list == nullptr || list->size() != 2 || !valid((*list)[0]) || !valid((*list)[1])) {
    bad(name, cat("an integer or a (time, frequency) pair of integers in ", low, "..", high));
  }
  return {static_cast<int64_t>((*list)[0]), static_cast<int64_t>((*list)[1])};
}

void AttrMap::finish() const {
  for (const auto& [name, item] : items_) {
    if (taken_.count(name)) continue;
    std::string known;
    for (const auto& [k, v] : taken_) known += (known.empty() ? "" : ", ") + k;
    throw Error(
        "ERR_PANNS_SPEC", where_,
        cat("unknown attribute '", name, "'; this op knows: ", known.empty() ? "none" : known));
  }
}

}  // namespace panns::ops
