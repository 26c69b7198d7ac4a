// How much memory this process may still be given.
#pragma once

#include <cstddef>
#include <string>

namespace panns {

// Bytes, the least of: what the kernel calls available, and free swap; what the limits of its
// control groups leave (a container's); what RLIMIT_AS leaves. The greatest size_t where the system
// says none of them. Others may take it meanwhile: a refusal is certain, a promise is not.
// `root` is put before /proc and /sys, for tests.
size_t available_memory(const std::string& root = "");

}  // namespace panns
