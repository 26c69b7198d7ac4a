// Errors are data: a code, where it happened, and what was expected against what came.
#pragma once

#include <exception>
#include <sstream>
#include <string>
#include <utility>

namespace panns {

// Thrown by everything below the bindings; the bindings turn it into a JavaScript PannsError.
// Codes are the same strings as in lib/errors.ts, for example "ERR_PANNS_SHAPE".
class Error : public std::exception {
 public:
  Error(std::string code, std::string where, std::string what)
      : code_(std::move(code)), where_(std::move(where)), text_(std::move(what)) {
    full_ = where_.empty() ? text_ : where_ + ": " + text_;
  }
  const char* what() const noexcept override { return full_.c_str(); }
  const std::string& code() const { return code_; }
  const std::string& where() const { return where_; }

 private:
  std::string code_, where_, text_, full_;
};

// Joins its arguments into one string, as operator<< prints them.
template <typename... Args>
std::string cat(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

// CHECK(cond, code, where, parts...): throws Error{code, where, cat(parts...)} unless cond holds.
#define PANNS_CHECK(cond, code, where, ...)                                        \
  do {                                                                             \
    if (!(cond)) throw ::panns::Error((code), (where), ::panns::cat(__VA_ARGS__)); \
  } while (0)

}  // namespace panns
