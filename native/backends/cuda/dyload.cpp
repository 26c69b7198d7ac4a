#include "backends/cuda/dyload.h"

#include <dlfcn.h>
#include <glob.h>
#include <link.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "core/elf.h"
#include "core/error.h"

namespace panns::cuda {
namespace {

constexpr const char* kManifest = "panns_cuda.libs";

std::string dl_reason() {
  const char* text = dlerror();
  return text != nullptr ? text : "the dynamic loader gave no reason";
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

bool is_folder(const std::string& path) {
  struct stat s;
  return stat(path.c_str(), &s) == 0 && S_ISDIR(s.st_mode);
}

std::vector<std::string> matches(const std::string& pattern) {
  std::vector<std::string> found;
  glob_t g;
  if (glob(pattern.c_str(), 0, nullptr, &g) == 0) {
    for (size_t i = 0; i < g.gl_pathc; ++i) found.emplace_back(g.gl_pathv[i]);
  }
  globfree(&g);
  return found;
}

// The folder that a file or folder lies in.
std::string parent(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return path.substr(0, slash);
}

// The folder of the shared object that this code is part of.
std::string own_folder() {
  Dl_info info;
  if (dladdr(reinterpret_cast<const void*>(&own_folder), &info) == 0) return "";
  if (info.dli_fname == nullptr) return "";
  return parent(info.dli_fname);
}

std::vector<std::string> lines_of(const std::string& path) {
  std::vector<std::string> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.empty()) lines.push_back(line);
  }
  return lines;
}

std::vector<std::string> parts_of(const std::string& list) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(':', begin), list.size());
    parts.push_back(list.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

// Where the python3 of the PATH may be installed: bin/python3's parent folder, and those of the
// links it leads through. An environment's own bin/python3 is a link to another Python's, and has
// the packages beside it; one of the system's may be a link to an environment's.
std::vector<std::string> python_prefixes() {
  constexpr int kMostLinks = 8;
  std::vector<std::string> prefixes;
  for (const std::string& folder : parts_of(environment("PATH"))) {
    std::string path = folder + "/python3";
    if (folder.empty() || access(path.c_str(), X_OK) != 0) continue;
    for (int link = 0; link < kMostLinks; ++link) {
      prefixes.push_back(parent(parent(path)));
      std::error_code none;
      const auto to = std::filesystem::read_symlink(path, none);
      if (none) break;
      path = (std::filesystem::path(parent(path)) / to).lexically_normal().string();
    }
    break;
  }
  return prefixes;
}

// The file that an open library came from, which may have been opened by its soname alone.
std::string path_of(void* handle) {
  link_map* map = nullptr;
  return dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0 ? map->l_name : "";
}

bool attempt(Library& library, const std::string& path) {
  // Only a path names the file before it is opened.
  if (const bool named = path.find('/') != std::string::npos; named) {
    if (const std::string fault = elf_fault(path); !fault.empty()) {
      library.attempts.push_back({path, fault});
      return false;
    }
  }
  // RTLD_GLOBAL would let other libraries bind to these symbols; a soname that is open already is
  // found by the loader without it.
  library.handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  library.attempts.push_back({path, library.loaded() ? "" : dl_reason()});
  if (library.loaded()) library.path = path_of(library.handle);
  return library.loaded();
}

}  // namespace

void* Library::function(const char* name) const {
  return handle != nullptr ? dlsym(handle, name) : nullptr;
}

std::vector<std::string> library_folders() {
  std::vector<std::string> folders;
  const auto add = [&](const std::string& folder) {
    const bool known = std::find(folders.begin(), folders.end(), folder) != folders.end();
    if (!folder.empty() && !known && is_folder(folder)) folders.push_back(folder);
  };
  for (const auto& folder : parts_of(environment("PANNS_CUDA_LIB_DIRS"))) add(folder);
  for (const auto& folder : lines_of(own_folder() + "/" + kManifest)) add(folder);
  std::vector<std::string> prefixes{environment("VIRTUAL_ENV"), environment("CONDA_PREFIX")};
  for (const std::string& prefix : python_prefixes()) prefixes.push_back(prefix);
  for (const std::string& prefix : prefixes) {
    if (prefix.empty()) continue;
    // Python's packages keep each library in a folder of its own: nvidia/cudnn/lib,
    // nvidia/cu13/lib. Debian's Python has its packages in dist-packages.
    for (const char* packages : {"/lib/python3*/site-packages", "/lib/python3*/dist-packages",
                                 "/local/lib/python3*/dist-packages"}) {
      for (const auto& found : matches(cat(prefix, packages, "/nvidia/*/lib"))) add(found);
    }
    add(prefix + "/lib");
  }
  for (const std::string& root :
       {environment("CUDA_PATH"), environment("CUDA_HOME"), std::string("/usr/local/cuda")}) {
    if (root.empty()) continue;
    add(root + "/lib64");
    add(root + "/lib");
  }
  return folders;
}

Library open_library(const std::string& soname, const std::vector<std::string>& beside) {
  Library library;
  for (const auto& folder : library_folders()) {
    const std::string path = folder + "/" + soname;
    if (!std::ifstream(path)) {
      library.attempts.push_back({path, "no such file"});
      continue;
    }
    if (!attempt(library, path)) continue;
    for (const auto& pattern : beside) {
      // Not finding one here is no error: the library then looks for it itself.
      for (const auto& file : matches(folder + "/" + pattern)) {
        dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
      }
    }
    return library;
  }
  attempt(library, soname);
  return library;
}

Library open_driver() {
  Library library;
  attempt(library, "libcuda.so.1");
  return library;
}

std::string attempts_text(const std::vector<Attempt>& attempts) {
  std::string text;
  for (const Attempt& a : attempts) {
    if (!a.reason.empty()) text += cat("\n  ", a.path, ": ", a.reason);
  }
  return text;
}

}  // namespace panns::cuda
