// How fast a kernel set multiplies panels, away from a model: what bounds a step.
#pragma once
#include <cstddef>
#include <vector>

#include "core/weight.h"
#include "kernels/table.h"

struct LinearTest {
  WeightKind kind = kInt4;
  size_t activation_bits = 8;  // 16: int8 weights with two planes
  size_t cols = 0, group = 0;
  size_t rows = 1;      // of activations; 0: the panels are only read, word by word
  size_t bytes = 0;     // of panels, at least; each thread has its own part of them
  size_t threads = 1;
  size_t repeats = 1;   // walks over the panels that make a pass
  size_t passes = 5;
  size_t wide = 0;      // of affine weights
};

struct LinearTimes {
  size_t bytes = 0;             // of panels that a pass reads
  std::vector<double> seconds;  // of each pass
};

// Throws std::invalid_argument for shapes that no kernel takes, OutOfMemory.
LinearTimes linear_times(const KernelTable& kernels, const LinearTest& test);
