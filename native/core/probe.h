// What this machine is: asked, or measured.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/table.h"

// Cores this process may use, threads of one core counted once, and no more than its CPU quota. At least 1.
size_t physical_cores();

// Reads [from, to), both multiples of 64 bytes; the sum keeps the compiler from dropping the loads.
uint64_t sum_words(const uint8_t* from, const uint8_t* to);

// Bytes a second that `threads` threads read from a buffer of `bytes`, best of several passes. Throws OutOfMemory.
double read_bandwidth(size_t bytes, size_t threads);

// Operations on int8 a second, a product with its sum counted as two, that `threads` threads do together on registers
// alone; best of several passes.
double int8_peak(const KernelTable& kernels, size_t threads);

// As the operating system tells it; "unknown" where it does not.
struct CpuName {
  std::string vendor;
  std::string model;
};
CpuName cpu_name(const char* cpuinfo = "/proc/cpuinfo");
