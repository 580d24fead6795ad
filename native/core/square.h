// What feed-forward halves without gates, and those whose activation is a square, need beside the kernels.
#pragma once
#include <array>
#include <cstddef>

#include "core/weight.h"

constexpr size_t kWidestGroup = 128;

// Stands for a panel of `up` where there are no gates.
constexpr auto kOnes = [] {
  std::array<float, kPanelRows> ones{};
  for (float& one : ones) one = 1.0f;
  return ones;
}();

// relu(gate)² * up of a panel.
inline void square(float* out, const float* gate, const float* up) {
  for (size_t i = 0; i < kPanelRows; ++i) {
    const float x = gate[i] < 0 ? 0.0f : gate[i];
    out[i] = x * x * up[i];
  }
}
