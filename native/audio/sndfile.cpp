#include "audio/sndfile.h"

#include <dlfcn.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>

#include "core/error.h"

namespace panns::audio {
namespace {

constexpr const char* kLibrary = "libsndfile.so.1";

struct State {
  std::mutex mutex;
  std::string dir;
  bool loaded = false;
  SndfileApi api;
  std::shared_mutex open_mutex;
  std::vector<SndfileAttempt> attempts;
};

State& state() {
  static State* s = new State;  // never destroyed: threads may decode while the process exits
  return *s;
}

std::string dl_reason() {
  const char* text = dlerror();
  return text ? text : "the dynamic loader gave no reason";
}

// The folder of the shared object (or program) that this code is part of.
std::string own_dir() {
  Dl_info info;
  if (!dladdr(reinterpret_cast<const void*>(&own_dir), &info) || !info.dli_fname) return "";
  std::string path = info.dli_fname;
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

// Opens what the folder's manifest lists, in its order, so that the library's own dependencies are
// met by SONAME with the copies that lie beside it: the loader does not look in a library's folder.
// Returns why not, or an empty string.
std::string open_dependencies(const std::string& dir) {
  std::ifstream manifest(dir + "/" + kSndfileManifest);
  if (!manifest) return "";  // a bare library with system dependencies
  std::string name;
  while (std::getline(manifest, name)) {
    if (name.empty() || name == kLibrary) continue;
    if (name.find('/') != std::string::npos) {
      return cat(kSndfileManifest, " names \"", name, "\", which is not a plain file name");
    }
    if (!dlopen((dir + "/" + name).c_str(), RTLD_NOW | RTLD_LOCAL)) {
      return cat("its dependency does not load: ", dl_reason());
    }
  }
  return "";
}

template <typename Fn>
bool bind(void* library, const char* name, Fn& fn, std::string& reason) {
  dlerror();
  fn = reinterpret_cast<Fn>(dlsym(library, name));
  if (!fn && reason.empty()) reason = cat("no function ", name, ": ", dl_reason());
  return fn != nullptr;
}

std::string bind_all(void* library, SndfileApi& api) {
  std::string reason;
  bind(library, "sf_open", api.open, reason);
  bind(library, "sf_open_virtual", api.open_virtual, reason);
  bind(library, "sf_close", api.close, reason);
  bind(library, "sf_seek", api.seek, reason);
  bind(library, "sf_readf_float", api.readf_float, reason);
  bind(library, "sf_writef_float", api.writef_float, reason);
  bind(library, "sf_error", api.error, reason);
  bind(library, "sf_strerror", api.strerror, reason);
  bind(library, "sf_version_string", api.version_string, reason);
  return reason;
}

// dir empty: the system's search. Returns why not, or an empty string and a complete api.
std::string try_open(const std::string& dir, SndfileApi& api) {
  const std::string path = dir.empty() ? kLibrary : dir + "/" + kLibrary;
  if (!dir.empty()) {
    if (!std::ifstream(path)) return std::strerror(errno);
    if (std::string reason = open_dependencies(dir); !reason.empty()) return reason;
  }
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) return dl_reason();
  if (std::string reason = bind_all(library, api); !reason.empty()) {
    dlclose(library);
    return reason;
  }
  Dl_info info;
  const bool known = dladdr(reinterpret_cast<const void*>(api.open), &info) && info.dli_fname;
  api.path = known ? info.dli_fname : path;
  api.version = api.version_string();
  return "";
}

bool load(State& s) {
  if (s.loaded) return true;
  std::vector<std::string> dirs;
  const auto add = [&](const std::string& dir) {
    if (dir.empty()) return;
    for (const std::string& known : dirs) {
      if (known == dir) return;
    }
    dirs.push_back(dir);
  };
  add(s.dir);
  if (const char* dir = std::getenv("PANNS_SNDFILE_DIR")) add(dir);
  add(own_dir());
  dirs.push_back("");
  s.attempts.clear();
  for (const std::string& dir : dirs) {
    std::string reason = try_open(dir, s.api);
    s.loaded = reason.empty();
    s.attempts.push_back({dir.empty() ? kLibrary : dir + "/" + kLibrary, std::move(reason)});
    if (s.loaded) break;
  }
  s.api.open_mutex = &s.open_mutex;
  return s.loaded;
}

}  // namespace

void set_sndfile_dir(const std::string& dir) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.dir = dir;
}

const SndfileApi& sndfile() {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  if (load(s)) return s.api;
  std::string tried;
  for (const SndfileAttempt& a : s.attempts) tried += cat("\n  ", a.path, ": ", a.reason);
  throw Error(
      "ERR_PANNS_AUDIO_LIBRARY", "",
      cat("reading audio files needs libsndfile (MP3: 1.1 or newer) and none could be opened; "
          "install it (Debian, Ubuntu: apt-get install libsndfile1; Fedora: dnf install "
          "libsndfile) or name the folder of ",
          kLibrary, " in PANNS_SNDFILE_DIR. Tried:", tried));
}

SndfileStatus sndfile_status() {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  SndfileStatus out;
  out.loaded = load(s);
  if (out.loaded) {
    out.path = s.api.path;
    out.version = s.api.version;
  }
  out.attempts = s.attempts;
  return out;
}

}  // namespace panns::audio
