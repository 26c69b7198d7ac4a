// Shared libraries, before they are opened.
#pragma once

#include <string>

namespace panns {

// What is wrong with a 64-bit shared library, as far as its header tells; empty when nothing is.
// dlopen() maps a file that was cut off, and the process dies of SIGBUS where it touches the part
// that is missing: so this is asked before.
std::string elf_fault(const std::string& path);

}  // namespace panns
