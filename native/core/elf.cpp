#include "core/elf.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <fstream>

#include "core/error.h"

namespace panns {
namespace {

// Where a 64-bit header keeps what is asked here (the System V ABI, "ELF Header").
constexpr size_t kHeaderBytes = 64, kClass = 4, kSectionOffset = 40, kSectionSize = 58,
                 kSectionCount = 60;
constexpr char kClass64 = 2;

template <typename T>
T number(const std::array<char, kHeaderBytes>& header, size_t at) {
  T value;
  std::memcpy(&value, header.data() + at, sizeof(value));
  return value;
}

}  // namespace

std::string elf_fault(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::array<char, kHeaderBytes> header;
  if (!file.read(header.data(), header.size())) {
    return "it cannot be read, or is shorter than the header of a library";
  }
  if (std::memcmp(header.data(), "\177ELF", 4) != 0) return "it is no library";
  if (header[kClass] != kClass64) return "it is built for a 32-bit machine";
  file.seekg(0, std::ios::end);
  const auto size = static_cast<uint64_t>(file.tellg());
  // The table of sections is what linkers and strip write last.
  const uint64_t end =
      number<uint64_t>(header, kSectionOffset) +
      uint64_t{number<uint16_t>(header, kSectionSize)} * number<uint16_t>(header, kSectionCount);
  return size < end ? cat("it is cut off: ", size, " of at least ", end, " bytes") : "";
}

}  // namespace panns
