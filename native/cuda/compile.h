// Kernels are shipped as source and compiled on the user's machine, for exactly the card that is there, by NVIDIA's
// runtime compiler (NVRTC), found at run time. What it made is kept on disk.
#pragma once
#include <string>
#include <vector>

#include "cuda/driver.h"

namespace cuda {

struct CompileRequest {
  int sm = 0;                          // 10 * major + minor
  std::string keep;                    // directory for what was made; empty: nothing is kept
  std::vector<std::string> libraries;  // NVRTC is looked for here first, in order
  int driver_version = 0;              // a newer compiler's output is not taken by an older driver
};

struct Compiled {
  std::string image;     // a cubin; or, where the compiler does not know the card, PTX
  std::string compiler;  // its path and version
  std::string note;      // what a person should know, or empty
  bool cached = false;    // it was made before
  bool ptx = false;
};

// Throws Unusable: no compiler, with all paths that were tried; or the beginning of what it said.
Compiled compile(const CompileRequest& request);

// The compiler that would be taken, with its version, and all paths that are looked at, in order. Throws as `compile`.
struct Found {
  std::string compiler;
  std::vector<std::string> paths;
};
Found find_compiler(const CompileRequest& request);

// Hash of the kernels and how they are compiled.
std::string sources_hash();

// Name and text of each source; the first is the one to compile. Made by CMake.
struct Source {
  const char* name;
  const char* text;
};
extern const std::vector<Source> kSources;

}  // namespace cuda
