#include "cuda/sha256.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

namespace cuda {
namespace {

constexpr size_t kRounds = 64, kBlock = 64;

// The first 32 bits of the fractions of the square roots (8) and cube roots (64) of the first primes: made, not copied.
struct Constants {
  std::array<uint32_t, 8> start;
  std::array<uint32_t, kRounds> rounds;
  Constants() {
    size_t found = 0;
    for (uint32_t n = 2; found < kRounds; ++n) {
      bool prime = true;
      for (uint32_t d = 2; d * d <= n; ++d) prime = prime && n % d != 0;
      if (!prime) continue;
      if (found < start.size()) start[found] = fraction(std::sqrt(static_cast<long double>(n)));
      rounds[found++] = fraction(std::cbrt(static_cast<long double>(n)));
    }
  }
  static uint32_t fraction(long double x) { return static_cast<uint32_t>((x - std::floor(x)) * 4294967296.0L); }
};

void take_block(std::array<uint32_t, 8>& state, const unsigned char* block, const Constants& constants) {
  std::array<uint32_t, kRounds> w{};
  for (size_t i = 0; i < 16; ++i)
    for (size_t byte = 0; byte < 4; ++byte) w[i] = w[i] << 8 | block[4 * i + byte];
  for (size_t i = 16; i < kRounds; ++i) {
    const uint32_t a = w[i - 15], b = w[i - 2];
    w[i] = w[i - 16] + (std::rotr(a, 7) ^ std::rotr(a, 18) ^ a >> 3) + w[i - 7] +
           (std::rotr(b, 17) ^ std::rotr(b, 19) ^ b >> 10);
  }
  auto [a, b, c, d, e, f, g, h] = state;
  for (size_t i = 0; i < kRounds; ++i) {
    const uint32_t one = h + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25)) + ((e & f) ^ (~e & g)) +
                         constants.rounds[i] + w[i];
    const uint32_t two = (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    h = g, g = f, f = e, e = d + one, d = c, c = b, b = a, a = one + two;
  }
  const std::array<uint32_t, 8> after{a, b, c, d, e, f, g, h};
  for (size_t i = 0; i < state.size(); ++i) state[i] += after[i];
}

}  // namespace

std::string sha256(const std::string& bytes) {
  static const Constants constants;
  std::string padded = bytes + '\x80';
  while (padded.size() % kBlock != kBlock - 8) padded += '\0';
  for (int shift = 56; shift >= 0; shift -= 8) padded += static_cast<char>(uint64_t{bytes.size()} * 8 >> shift & 255);
  std::array<uint32_t, 8> state = constants.start;
  for (size_t at = 0; at < padded.size(); at += kBlock)
    take_block(state, reinterpret_cast<const unsigned char*>(padded.data()) + at, constants);
  std::string hex;
  for (const uint32_t word : state)
    for (int shift = 28; shift >= 0; shift -= 4) hex += "0123456789abcdef"[word >> shift & 15];
  return hex;
}

}  // namespace cuda
