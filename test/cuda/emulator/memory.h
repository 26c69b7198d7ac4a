// Memory of the emulated devices: each piece in a mapping of its own between unmapped pages,
// poisoned when it is new, and open to accesses only while its device works.
#pragma once

#include <cstddef>
#include <map>

namespace cuda_emulator {

class Memory {
 public:
  // How much there is of it, in bytes.
  explicit Memory(size_t total);

  // Null where that much is not free.
  void* allocate(size_t bytes);
  // False where there is no piece that begins here.
  bool release(void* data);

  // A pool keeps what it is given back, as memory that only it can give out again.
  void* allocate_pooled(size_t bytes);
  bool release_pooled(void* data, size_t pool_keeps);
  void trim_pool(size_t keep);

  bool holds(const void* begin, size_t bytes) const;
  size_t total() const { return total_; }
  size_t free() const { return total_ - used_ - pooled_; }

  void open();
  // False, and told on stderr, where something was written beside a piece.
  bool close();

 private:
  struct Piece {
    std::byte *mapping = nullptr, *end = nullptr;  // between the unmapped pages
    size_t bytes = 0, taken = 0;
    std::byte* data = nullptr;
    bool pooled = false, is_open = false;
    size_t closings = 0;
  };
  static void protect(Piece& piece, bool open);
  bool intact(const Piece& piece) const;
  bool drop(void* data, bool pooled);
  void* map(size_t bytes, bool pooled);

  std::map<const std::byte*, Piece> pieces_;  // by where they begin
  size_t total_, used_ = 0, pooled_ = 0;
  int open_ = 0;
};

// Tells accesses to the devices' memory that it is closed to, and ends the process.
void watch_accesses();

}  // namespace cuda_emulator
