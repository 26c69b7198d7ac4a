// What the system is read to leave: /proc and /sys as files in a folder of the test's own.
#include "core/available_memory.h"

#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>

#include "tap.h"

namespace {

constexpr size_t kNoLimit = std::numeric_limits<size_t>::max();

// A folder that holds these files, until the object goes.
class Root {
 public:
  Root() {
    char name[] = "/tmp/panns-memory-XXXXXX";
    path_ = mkdtemp(name);
  }
  ~Root() { std::filesystem::remove_all(path_); }
  void write(const std::string& path, const std::string& text) const {
    const std::filesystem::path file = path_ + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  size_t available() const { return panns::available_memory(path_); }

 private:
  std::string path_;
};

void expect(size_t got, size_t want, const std::string& name) {
  tap::ok(got == want, name + ": " + std::to_string(got) + " for " + std::to_string(want));
}

void machine() {
  const Root root;
  expect(root.available(), kNoLimit, "a system that says nothing sets no limit");
  root.write("/proc/meminfo", "MemTotal:  9000 kB\nMemFree:  100 kB\nMemAvailable:  3000 kB\n");
  expect(root.available(), 3000u << 10, "what is available, not what is free");
  root.write("/proc/meminfo", "MemAvailable:  3000 kB\nSwapTotal: 900 kB\nSwapFree:  500 kB\n");
  expect(root.available(), 3500u << 10, "and free swap");
}

void version_two() {
  const Root root;
  root.write("/proc/meminfo", "MemAvailable:  1000000 kB\n");
  root.write("/proc/self/cgroup", "0::/a/b\n");
  expect(root.available(), size_t{1000000} << 10, "groups that cannot be read set no limit");
  const std::string group = "/sys/fs/cgroup";
  root.write(group + "/a/b/memory.max", "max\n");
  root.write(group + "/a/b/memory.current", "123\n");
  expect(root.available(), size_t{1000000} << 10, "nor do those without one");
  root.write(group + "/a/b/memory.max", "70000000\n");
  root.write(group + "/a/b/memory.current", "50000000\n");
  root.write(group + "/a/b/memory.stat", "anon 9\ninactive_file 7000000\nactive_file 3000000\n");
  expect(root.available(), 30000000, "a limit, of which cached files take nothing");
  root.write(group + "/a/memory.max", "45000000\n");
  root.write(group + "/a/memory.current", "40000000\n");
  expect(root.available(), 5000000, "the least of a group and those around it");
  root.write(group + "/memory.max", "1000\n");
  root.write(group + "/memory.current", "2000\n");
  expect(root.available(), 0, "a limit that is used up leaves nothing");
}

void version_one() {
  const Root root;
  root.write("/proc/self/cgroup", "5:cpu:/x\n4:memory:/job/1\n1:name=systemd:/\n");
  const std::string group = "/sys/fs/cgroup/memory";
  root.write(group + "/memory.limit_in_bytes", "9223372036854771712\n");
  root.write(group + "/job/1/memory.limit_in_bytes", "8000000\n");
  root.write(group + "/job/1/memory.usage_in_bytes", "6000000\n");
  root.write(group + "/job/1/memory.stat", "total_inactive_file 100\ntotal_active_file 11\n");
  expect(root.available(), 2000111, "the limit of the memory controller");
  root.write("/proc/self/cgroup", "memory\n4:memory:none\n");
  expect(root.available(), kNoLimit, "lines of another form are passed over");
}

void address_space() {
  const Root root;
  rlimit before{};
  getrlimit(RLIMIT_AS, &before);
  root.write("/proc/self/statm", "1000 500 1 1 1 1 0\n");
  const rlimit limit{size_t{1} << 40, before.rlim_max};
  tap::ok(setrlimit(RLIMIT_AS, &limit) == 0, "a limit of the address space is set");
  const auto used = 1000 * static_cast<size_t>(sysconf(_SC_PAGESIZE));
  expect(root.available(), (size_t{1} << 40) - used, "it leaves what the process has not mapped");
  setrlimit(RLIMIT_AS, &before);
}

}  // namespace

int main() {
  machine();
  version_two();
  version_one();
  address_space();
  const size_t here = panns::available_memory();
  tap::ok(here > 0, "this system leaves " + std::to_string(here >> 20) + " MiB");
  return tap::done();
}
