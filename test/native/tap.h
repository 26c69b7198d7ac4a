// A few lines of TAP for the native test programs; test/native.test.ts runs them and reads this.
#pragma once

#include <cstdio>
#include <string>

namespace tap {

inline int count = 0, failures = 0;

inline bool ok(bool pass, const std::string& name) {
  std::printf("%s %d - %s\n", pass ? "ok" : "not ok", ++count, name.c_str());
  if (!pass) ++failures;
  return pass;
}

// Prints the plan; the value to return from main.
inline int done() {
  std::printf("1..%d\n", count);
  return failures == 0 ? 0 : 1;
}

}  // namespace tap
