// Cosines and sines, made once.
#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "core/pool.h"
#include "core/program.h"

size_t Program::rope_table(const double* inv_freq, size_t half, size_t positions, double attention_factor, double growth,
                           double every) {
  REQUIRE(half > 0 && half <= 256, "%zu frequencies", half);
  REQUIRE(positions > 0 && positions <= size_t{1} << 24, "a RoPE table of %zu positions", positions);
  for (size_t i = 0; i < half; ++i) REQUIRE(std::isfinite(inv_freq[i]), "RoPE frequency %zu is not finite", i);
  REQUIRE(std::isfinite(attention_factor), "the attention factor of RoPE is not finite");
  REQUIRE(std::isfinite(growth) && every >= 1, "RoPE grows by %g every %g positions", growth, every);
  RopeTable table;
  table.half = half;
  table.positions = positions;
  table.values = Memory(positions * 2 * half * sizeof(float), "the RoPE table");
  auto* values = reinterpret_cast<float*>(table.values.data());
  constexpr size_t chunk = 256;
  parallel_for((positions + chunk - 1) / chunk, pool_.threads(), [&](size_t c) {
    for (size_t p = c * chunk; p < std::min(positions, (c + 1) * chunk); ++p) {
      const double position = static_cast<double>(p);
      const double factor = attention_factor * (1 + growth * std::log1p(std::floor(position / every)));
      for (size_t i = 0; i < half; ++i) {
        const double angle = position * inv_freq[i];
        values[p * 2 * half + i] = static_cast<float>(std::cos(angle) * factor);
        values[p * 2 * half + half + i] = static_cast<float>(std::sin(angle) * factor);
      }
    }
  });
  ropes_.push_back(std::move(table));
  return ropes_.size() - 1;
}
