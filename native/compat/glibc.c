// libstdc++.a of Debian 12 takes arc4random from glibc, which has it since 2.36 only; with this
// one in its place the addon loads from glibc 2.34 on (scripts/check-elf.mjs).
#include <stdint.h>
#include <unistd.h>

__attribute__((visibility("hidden"))) uint32_t arc4random(void) {
  uint32_t value;
  // std::random_device is the one caller. It cannot be told of a failure, and glibc's own function
  // ends the process too: a number that can be guessed would be worse.
  if (getentropy(&value, sizeof(value)) != 0) __builtin_trap();
  return value;
}
