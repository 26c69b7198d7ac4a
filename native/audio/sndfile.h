// libsndfile (LGPL-2.1) found and opened at run time, never linked: the build needs none of its
// headers, and whoever has the package may put another build of the library in its place.
// The declarations follow its documented C interface, which is stable since version 1.0.
#pragma once

#include <cstdint>
#include <shared_mutex>
#include <string>
#include <vector>

namespace panns::audio {

struct SndfileHandle;  // SNDFILE

struct SndfileInfo {  // SF_INFO
  int64_t frames = 0;
  int samplerate = 0;
  int channels = 0;
  int format = 0;
  int sections = 0;
  int seekable = 0;
};

struct SndfileVirtualIo {  // SF_VIRTUAL_IO
  int64_t (*get_filelen)(void* user);
  int64_t (*seek)(int64_t offset, int whence, void* user);
  int64_t (*read)(void* out, int64_t count, void* user);
  int64_t (*write)(const void* in, int64_t count, void* user);
  int64_t (*tell)(void* user);
};

inline constexpr int kSndfileRead = 0x10;                    // SFM_READ
inline constexpr int kSndfileWrite = 0x20;                   // SFM_WRITE
inline constexpr int kSndfileTypeMask = 0x0FFF0000;          // SF_FORMAT_TYPEMASK
inline constexpr int kSndfileSubtypeMask = 0x0000FFFF;       // SF_FORMAT_SUBMASK
inline constexpr int64_t kSndfileUnknownFrames = INT64_MAX;  // SF_COUNT_MAX

struct SndfileApi {
  SndfileHandle* (*open)(const char* path, int mode, SndfileInfo* info);
  SndfileHandle* (*open_virtual)(SndfileVirtualIo* io, int mode, SndfileInfo* info, void* user);
  int (*close)(SndfileHandle* file);
  int64_t (*seek)(SndfileHandle* file, int64_t frames, int whence);
  int64_t (*readf_float)(SndfileHandle* file, float* out, int64_t frames);
  int64_t (*writef_float)(SndfileHandle* file, const float* in, int64_t frames);
  int (*error)(SndfileHandle* file);
  const char* (*strerror)(SndfileHandle* file);
  const char* (*version_string)();

  std::string path;     // the file it came from
  std::string version;  // for example "libsndfile-1.2.0"

  // With no handle, error and strerror read a global that every open writes. Opens hold this
  // shared; whoever wants the text of a failed open repeats that open holding it alone.
  std::shared_mutex* open_mutex;
};

// One place that was tried, and why it did not serve (empty when it did).
struct SndfileAttempt {
  std::string path;
  std::string reason;
};

struct SndfileStatus {
  bool loaded = false;
  std::string path, version;
  std::vector<SndfileAttempt> attempts;  // in the order tried, the successful one last
};

// A folder to look in before all others; has no effect once the library is loaded. An empty string
// takes it back. A folder may hold the library's dependencies too, with a list of them
// (kSndfileManifest) in the order they are to be opened: scripts/vendor-sndfile.mjs makes one.
void set_sndfile_dir(const std::string& dir);
inline constexpr const char* kSndfileManifest = "sndfile.libs";

// The library, opened on first use and kept for the life of the process. Looked for in the folder
// of set_sndfile_dir, in $PANNS_SNDFILE_DIR, beside this binary, then where the system looks.
// Errors: ERR_PANNS_AUDIO_LIBRARY, naming every place tried. A failure is not remembered: the next
// call looks again.
const SndfileApi& sndfile();

// The same without throwing: where it was found, or all that was tried.
SndfileStatus sndfile_status();

}  // namespace panns::audio
