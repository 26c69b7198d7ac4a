// NVIDIA's libraries found and opened at run time, never linked: whoever has no GPU needs none of
// them, and the same binary takes the versions that lie beside PyTorch, in a toolkit or in the
// project's own folder.
#pragma once

#include <string>
#include <vector>

namespace panns::cuda {

// One place that was tried, and why it did not serve (empty when it did).
struct Attempt {
  std::string path, reason;
};

struct Library {
  void* handle = nullptr;
  std::string path;  // the file it came from
  std::vector<Attempt> attempts;
  bool loaded() const { return handle != nullptr; }
  // The address of a function; null when the library has none of that name.
  void* function(const char* name) const;
};

// Folders to look in, in order: $PANNS_CUDA_LIB_DIRS (several are separated by ':'), those listed
// in panns_cuda.libs beside this library, the nvidia packages of $VIRTUAL_ENV, of $CONDA_PREFIX and
// of the first python3 on the PATH, also where that is a link, then the toolkits of $CUDA_PATH,
// $CUDA_HOME and /usr/local/cuda. Only folders that exist.
std::vector<std::string> library_folders();

// Opens soname from the first folder that has it, else from where the system looks; what was opened
// stays open for the life of the process. `beside` are patterns of files in the same folder that
// the library opens by name later, which are opened after it. Where none was opened, the attempts
// tell every place.
Library open_library(const std::string& soname, const std::vector<std::string>& beside = {});

// The driver's library, as the CUDA runtime finds it: from where the system looks, and nowhere
// else.
Library open_driver();

// One line a failed attempt.
std::string attempts_text(const std::vector<Attempt>& attempts);

}  // namespace panns::cuda
