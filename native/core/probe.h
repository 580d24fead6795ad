// What this machine is: asked, or measured.
#pragma once
#include <cstddef>

// Cores this process may use, threads of one core counted once, and no more than its CPU quota. At least 1.
size_t physical_cores();

// Bytes a second that `threads` threads read from a buffer of `bytes`, best of several passes. Throws OutOfMemory.
double read_bandwidth(size_t bytes, size_t threads);
