#include "parallel/agree.h"

#include <algorithm>
#include <new>
#include <optional>
#include <vector>

namespace panns::parallel {
namespace {

// Code, place and text travel as one string; none of them holds this character.
constexpr char kSeparator = '\x1f';

// What a process says of itself.
constexpr double kFailed = 1, kLeft = 2;

std::string packed(const Error& e) {
  const size_t skip = e.where().empty() ? 0 : e.where().size() + 2;
  return cat(e.code(), kSeparator, e.where(), kSeparator, e.what() + skip);
}

Error unpacked(const std::string& text, int rank) {
  const size_t first = text.find(kSeparator), second = text.find(kSeparator, first + 1);
  const std::string where = text.substr(first + 1, second - first - 1);
  return Error(text.substr(0, first), cat("process ", rank, where.empty() ? "" : ", ", where),
               text.substr(second + 1));
}

}  // namespace

double together(backends::Collective& processes, const std::function<double()>& body) {
  std::optional<Error> own;
  double value = 0;
  try {
    value = body();
  } catch (const Error& e) {
    own = e;
  } catch (const std::bad_alloc&) {
    own = Error("ERR_PANNS_OUT_OF_MEMORY", "", "expected more memory than the system can give");
  } catch (const std::exception& e) {
    own = Error("ERR_PANNS_INTERNAL", "", e.what());
  }
  // As lib/train/distributed.ts lays them out: a flag a process, and one number more.
  const int size = processes.size(), rank = processes.rank();
  std::vector<double> flags(static_cast<size_t>(size) + 1, 0.0);
  flags.back() = value;
  if (own.has_value()) flags[static_cast<size_t>(rank)] = kFailed;
  const auto first_with = [&](double flag) {
    return static_cast<int>(std::find(flags.begin(), flags.begin() + size, flag) - flags.begin());
  };
  std::string text;
  int failed = size;
  try {
    processes.sum(flags.data(), size + 1);
    const int left = first_with(kLeft);
    PANNS_CHECK(left == size, "ERR_PANNS_PARALLEL", cat("process ", rank), "process ", left,
                " has left while the others go on");
    failed = first_with(kFailed);
    if (failed == size) return flags.back();
    if (failed == rank) text = packed(*own);
    double length = static_cast<double>(text.size());
    processes.sum(&length, 1);
    text.resize(static_cast<size_t>(length));
    processes.broadcast(text.data(), static_cast<int64_t>(text.size()), failed);
  } catch (const Error&) {
    // What happened here says more than that it could not be told.
    if (own.has_value()) throw *own;
    throw;
  }
  throw unpacked(text, failed);
}

}  // namespace panns::parallel
