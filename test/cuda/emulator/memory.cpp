#include "memory.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>

namespace cuda_emulator {
namespace {

// As cudaMalloc's addresses.
constexpr size_t kAlignment = 256;
constexpr size_t kPage = 4096;
// A piece this large is closed each time, one of twice the size every other time.
constexpr size_t kQuicklyClosed = 256 * 1024;
// Four of them are a NaN, as are two in a 16-bit type.
constexpr int kPoison = 0xFF;

size_t rounded(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

// Every address that ever belonged to a device, for the words on an access: what was freed stays
// reserved. Written under the runtime's lock; the process ends with the one reader.
struct Range {
  const std::byte *begin, *end;
  size_t bytes;
  const std::byte* data;
  bool freed;
};
std::map<const std::byte*, Range>& ranges() {
  static auto* all = new std::map<const std::byte*, Range>;
  return *all;
}
int working = 0;

struct sigaction earlier_action;

void on_fault(int number, siginfo_t* info, void* context) {
  const auto* at = static_cast<const std::byte*>(info->si_addr);
  const auto next = ranges().upper_bound(at);
  if (next == ranges().begin() || at >= std::prev(next)->second.end) {
    // Not ours: the access is repeated under the rules that were there before.
    sigaction(number, &earlier_action, nullptr);
    return;
  }
  const Range& r = std::prev(next)->second;
  const auto* who = working > 0 ? "a kernel or a copy" : "the host";
  const auto offset = static_cast<long long>(at - r.data);
  char text[256];
  const int length = std::snprintf(
      text, sizeof text, "emulated CUDA: %s touched byte %lld of %zu bytes of device memory%s\n",
      who, offset, r.bytes, r.freed ? ", which were freed" : "");
  if (write(STDERR_FILENO, text, static_cast<size_t>(length)) < 0) _exit(1);
  signal(SIGABRT, SIG_DFL);
  abort();
}

}  // namespace

void watch_accesses() {
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, &earlier_action);
}

Memory::Memory(size_t total) : total_(total) {}

void Memory::protect(Piece& piece, bool open) {
  const auto length = static_cast<size_t>(piece.end - piece.mapping);
  mprotect(piece.mapping, length, open ? PROT_READ | PROT_WRITE : PROT_NONE);
  piece.is_open = open;
}

// What lies between the mapping's ends and the piece still has the poison.
bool Memory::intact(const Piece& piece) const {
  const auto poisoned = [](std::byte b) { return b == std::byte{kPoison}; };
  return std::all_of(piece.mapping, piece.data, poisoned) &&
         std::all_of(piece.data + piece.bytes, piece.end, poisoned);
}

void* Memory::map(size_t bytes, bool pooled) {
  const size_t taken = rounded(bytes, kAlignment), length = rounded(taken, kPage);
  void* mapped = mmap(nullptr, length + 2 * kPage, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  Piece piece;
  piece.mapping = static_cast<std::byte*>(mapped) + kPage;
  piece.end = piece.mapping + length;
  piece.bytes = bytes;
  piece.taken = taken;
  piece.data = piece.end - taken;
  piece.pooled = pooled;
  protect(piece, true);
  std::memset(piece.mapping, kPoison, length);
  if (open_ == 0) protect(piece, false);
  ranges()[piece.mapping - kPage] = {piece.mapping - kPage, piece.end + kPage, bytes, piece.data,
                                     false};
  pieces_[piece.data] = piece;
  used_ += taken;
  return piece.data;
}

void* Memory::allocate(size_t bytes) {
  return bytes > free() || rounded(bytes, kAlignment) > free() ? nullptr : map(bytes, false);
}

void* Memory::allocate_pooled(size_t bytes) {
  const size_t taken = rounded(bytes, kAlignment);
  if (bytes > total_ || taken > free() + pooled_) return nullptr;
  pooled_ -= std::min(pooled_, taken);
  return map(bytes, true);
}

bool Memory::drop(void* data, bool pooled) {
  const auto it = pieces_.find(static_cast<std::byte*>(data));
  if (it == pieces_.end() || it->second.pooled != pooled) return false;
  const Piece& p = it->second;
  used_ -= p.taken;
  const auto length = static_cast<size_t>(p.end - p.mapping);
  mmap(p.mapping, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
       0);
  ranges()[p.mapping - kPage].freed = true;
  pieces_.erase(it);
  return true;
}

bool Memory::release(void* data) { return drop(data, false); }

bool Memory::release_pooled(void* data, size_t pool_keeps) {
  const auto it = pieces_.find(static_cast<std::byte*>(data));
  const size_t taken = it == pieces_.end() ? 0 : it->second.taken;
  if (!drop(data, true)) return false;
  pooled_ = std::min(pooled_ + taken, std::max(pooled_, pool_keeps));
  return true;
}

void Memory::trim_pool(size_t keep) { pooled_ = std::min(pooled_, keep); }

bool Memory::holds(const void* begin, size_t bytes) const {
  const auto* from = static_cast<const std::byte*>(begin);
  const auto next = pieces_.upper_bound(from);
  if (next == pieces_.begin()) return false;
  const Piece& p = std::prev(next)->second;
  return from <= p.data + p.bytes && bytes <= static_cast<size_t>(p.data + p.bytes - from);
}

void Memory::open() {
  ++working;
  if (open_++ > 0) return;
  for (auto& [data, piece] : pieces_) {
    if (!piece.is_open) protect(piece, true);
  }
}

bool Memory::close() {
  --working;
  if (--open_ > 0) return true;
  bool whole = true;
  for (auto& [data, piece] : pieces_) {
    if (!intact(piece)) {
      std::fprintf(stderr,
                   "emulated CUDA: something was written beside %zu bytes of device memory\n",
                   piece.bytes);
      whole = false;
    }
    if (++piece.closings % (1 + piece.bytes / kQuicklyClosed) == 0) protect(piece, false);
  }
  return whole;
}

}  // namespace cuda_emulator
