#include "core/available_memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <map>
#include <sstream>
#include <string>

#if defined(__linux__)
#include <sys/resource.h>
#include <unistd.h>
#endif

namespace panns {
namespace {

constexpr size_t kNoLimit = std::numeric_limits<size_t>::max();

size_t left(size_t limit, size_t used) { return limit > used ? limit - used : 0; }

#if defined(__linux__)

// "name: value" and "name value" lines.
std::map<std::string, size_t> table(const std::string& path) {
  std::map<std::string, size_t> rows;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string name;
    size_t value = 0;
    if (!(words >> name >> value)) continue;
    if (name.back() == ':') name.pop_back();
    rows[name] = value;
  }
  return rows;
}

// The number that a file holds; `otherwise` where it is absent or says "max".
size_t number(const std::string& path, size_t otherwise) {
  std::ifstream file(path);
  size_t value = 0;
  return file >> value ? value : otherwise;
}

size_t of_machine(const std::string& root) {
  const auto info = table(root + "/proc/meminfo");
  const auto available = info.find("MemAvailable"), swap = info.find("SwapFree");
  if (available == info.end()) return kNoLimit;
  return (available->second + (swap != info.end() ? swap->second : 0)) << 10;
}

// How the two versions of control groups name their files and the page cache in memory.stat.
struct Group {
  std::string root, limit, used;
  const char *inactive, *active;
};

// The least that a group or one around it leaves. Cached pages of files go first and count as free.
size_t of_group(const Group& names, std::string path) {
  size_t least = kNoLimit;
  for (;;) {
    const std::string folder = names.root + path + "/";
    const size_t limit = number(folder + names.limit, kNoLimit);
    if (limit != kNoLimit) {
      auto stat = table(folder + "memory.stat");
      const size_t cached = stat[names.inactive] + stat[names.active];
      least = std::min(least, left(limit, left(number(folder + names.used, 0), cached)));
    }
    const size_t slash = path.rfind('/');
    if (slash == std::string::npos || path == "/") return least;
    path.resize(slash);
  }
}

size_t of_groups(const std::string& root) {
  size_t least = kNoLimit;
  std::ifstream groups(root + "/proc/self/cgroup");
  // "0::/path" in version 2, "4:memory:/path" in version 1. Within a container the path may be the
  // host's: what cannot be read there sets no limit, and the root of the mount is the container's.
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string kinds = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string path = line.substr(second + 1);
    if (kinds == ",,") {
      least = std::min(least, of_group({root + "/sys/fs/cgroup", "memory.max", "memory.current",
                                        "inactive_file", "active_file"},
                                       path));
    } else if (kinds.find(",memory,") != std::string::npos) {
      least = std::min(
          least, of_group({root + "/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                           "memory.usage_in_bytes", "total_inactive_file", "total_active_file"},
                          path));
    }
  }
  return least;
}

size_t of_address_space(const std::string& root) {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return kNoLimit;
  const size_t pages = number(root + "/proc/self/statm", 0);
  return left(limit.rlim_cur, pages * static_cast<size_t>(sysconf(_SC_PAGESIZE)));
}

#else

size_t of_machine(const std::string&) { return kNoLimit; }
size_t of_groups(const std::string&) { return kNoLimit; }
size_t of_address_space(const std::string&) { return kNoLimit; }

#endif

}  // namespace

size_t available_memory(const std::string& root) {
  return std::min({of_machine(root), of_groups(root), of_address_space(root)});
}

}  // namespace panns
