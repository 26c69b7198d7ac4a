// Attributes as a spec gives them: names to numbers, booleans, strings or lists of numbers. An op
// takes what it knows; what is left over is an error, so that a misspelt name is never ignored.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

namespace panns::ops {

class AttrMap {
 public:
  using Item = std::variant<double, bool, std::string, std::vector<double>>;

  explicit AttrMap(std::string where = "") : where_(std::move(where)) {}
  void set(const std::string& name, Item item) { items_[name] = std::move(item); }
  const std::string& where() const { return where_; }

  // Each returns the attribute or the fallback, checks its type and range, and marks it as known.
  double number(const std::string& name, double fallback, double low, double high);
  int64_t integer(const std::string& name, int64_t fallback, int64_t low, int64_t high);
  bool flag(const std::string& name, bool fallback);
  // The index of the string among names; throws listing them.
  int choice(const std::string& name, int fallback, const std::vector<std::string>& names);
  // A number means both.
  std::array<int64_t, 2> pair(const std::string& name, std::array<int64_t, 2> fallback, int64_t low,
                              int64_t high);
  // Throws if an attribute was given that nobody took.
  void finish() const;

 private:
  const Item* take(const std::string& name);
  [[noreturn]] void bad(const std::string& name, const std::string& expected) const;

  std::string where_;
  std::map<std::string, Item> items_;
  std::map<std::string, bool> taken_;
};

}  // namespace panns::ops
