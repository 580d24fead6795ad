// The products of the tensor cores against plain matrix products. The fragments are laid out here element by element,
// by the formulas of the PTX manual, which are not those that the emulator is written with.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "cuda/dev.cuh"

// g = lane / 4 ("groupID"), t = lane % 4 ("threadID_in_group"), i: the element's number in the fragment.
struct Place {
  int row, column;
};
static Place a_of_8_bit(int g, int t, int i) {
  const bool upper = (0 <= i && i < 4) || (8 <= i && i < 12);
  return {upper ? g : g + 8, i < 8 ? t * 4 + (i & 3) : t * 4 + (i & 3) + 16};
}
static Place b_of_8_bit(int g, int t, int i) { return {i < 4 ? t * 4 + (i & 3) : t * 4 + (i & 3) + 16, g}; }
static Place a_of_16_bit(int g, int t, int i) {
  const bool upper = (0 <= i && i < 2) || (4 <= i && i < 6);
  return {upper ? g : g + 8, i < 4 ? t * 2 + (i & 1) : t * 2 + (i & 1) + 8};
}
static Place b_of_16_bit(int g, int t, int i) { return {i < 2 ? t * 2 + (i & 1) : t * 2 + (i & 1) + 8, g}; }
static Place d_of_all(int g, int t, int i) { return {i < 2 ? g : g + 8, t * 2 + (i & 1)}; }

using Map = Place (*)(int, int, int);

struct Warp {
  unsigned a[32][4] = {}, b[32][2] = {};
};

// Matrices of small integers: rows of a, columns of b; encoded, the elements are `bytes` wide.
struct Case {
  int k, bytes;
  Map a_map, b_map;
  unsigned (*encode)(int);
  int a[16][32], b[32][8], d[16][8];

  void fill(unsigned seed, int most) {
    auto next = [&] { return int((seed = seed * 1664525u + 1013904223u) >> 8) % (2 * most + 1) - most; };
    for (auto& row : a) for (int& v : row) v = next();
    for (auto& row : b) for (int& v : row) v = next();
    for (auto& row : d) for (int& v : row) v = next();
  }
  int expected(int row, int column) const {
    int sum = d[row][column];
    for (int i = 0; i < k; ++i) sum += a[row][i] * b[i][column];
    return sum;
  }
  Warp fragments() const {
    Warp w;
    const int each = 4 / bytes;
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 4 * each; ++i) {
        const Place p = a_map(lane / 4, lane % 4, i);
        w.a[lane][i / each] |= encode(a[p.row][p.column]) << 8 * bytes * (i % each);
      }
      for (int i = 0; i < 2 * each; ++i) {
        const Place p = b_map(lane / 4, lane % 4, i);
        w.b[lane][i / each] |= encode(b[p.row][p.column]) << 8 * bytes * (i % each);
      }
    }
    return w;
  }
};

static unsigned byte(int v) { return uint8_t(v); }
static unsigned half(int v) { return li::float_to_half(float(v)); }
static unsigned bfloat(int v) { return std::bit_cast<uint32_t>(float(v)) >> 16; }

// Runs `multiply` on a warp; T is the type of the sums.
template <class T, class Multiply>
int wrong_elements(const Case& c, Multiply multiply, uint32_t schedule) {
  const Warp w = c.fragments();
  T result[32][4];
  emu::launch(1, 32, 0, [&] {
    const int lane = int(threadIdx.x);
    for (int i = 0; i < 4; ++i) {
      const Place p = d_of_all(lane / 4, lane % 4, i);
      result[lane][i] = T(c.d[p.row][p.column]);
    }
    multiply(result[lane], w.a[lane], w.b[lane]);
  }, schedule);
  int wrong = 0;
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const Place p = d_of_all(lane / 4, lane % 4, i);
      wrong += result[lane][i] != T(c.expected(p.row, p.column));
    }
  }
  return wrong;
}

// sm_75 has m8n8k16 only: row and column of a lane's word, and its two sums, by the manual's formulas.
static void small_product(int (*d)[4], int first, const unsigned (*a)[4], int from_a, const unsigned (*b)[2], int from_b) {
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 2; ++i) {
      const int row = lane / 4, column = lane % 4 * 2 + i;
      for (int t = 0; t < 4; ++t) {
        d[lane][first + i] = li::dp4a(int(a[4 * row + t][from_a]), int(b[4 * column + t][from_b]), d[lane][first + i]);
      }
    }
  }
}

// As dev.cuh puts four of them together.
static int wrong_on_sm_75(const Case& c) {
  const Warp w = c.fragments();
  int d[32][4], wrong = 0;
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const Place p = d_of_all(lane / 4, lane % 4, i);
      d[lane][i] = c.d[p.row][p.column];
    }
  }
  small_product(d, 0, w.a, 0, w.b, 0);
  small_product(d, 0, w.a, 2, w.b, 1);
  small_product(d, 2, w.a, 1, w.b, 0);
  small_product(d, 2, w.a, 3, w.b, 1);
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const Place p = d_of_all(lane / 4, lane % 4, i);
      wrong += d[lane][i] != c.expected(p.row, p.column);
    }
  }
  return wrong;
}

int main(int, char** arguments) {
  const auto schedule = uint32_t(std::atoi(arguments[1]));
  int s8 = 0, f16 = 0, bf16 = 0, sm_75 = 0;
  for (unsigned seed = 1; seed <= 20; ++seed) {
    Case c{32, 1, a_of_8_bit, b_of_8_bit, byte, {}, {}, {}};
    c.fill(seed, 127);
    s8 += wrong_elements<int>(c, [](auto& d, auto& a, auto& b) { li::mma_s8(d, a, b); }, schedule);
    sm_75 += wrong_on_sm_75(c);
    c = Case{16, 2, a_of_16_bit, b_of_16_bit, half, {}, {}, {}};
    c.fill(seed, 127);
    f16 += wrong_elements<float>(c, [](auto& d, auto& a, auto& b) { li::mma_f16(d, a, b); }, schedule);
    c.encode = bfloat;
    bf16 += wrong_elements<float>(c, [](auto& d, auto& a, auto& b) { li::mma_bf16(d, a, b); }, schedule);
  }
  std::printf("s8 %d f16 %d bf16 %d sm_75 %d wrong\n", s8, f16, bf16, sm_75);
  return s8 + f16 + bf16 + sm_75 != 0;
}
