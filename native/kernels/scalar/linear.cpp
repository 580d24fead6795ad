// Weight panels (block.h) times rows.
#include "kernels.h"
#include "math.h"

namespace scalar {

// dot[r] += sum over one group of (stored weight of panel row r) * a; the offset is taken off by the caller.
using GroupDot = void (*)(int32_t dot[kPanelRows], const uint8_t* tile, const int8_t* a, size_t group);

static void dot_i4(int32_t dot[kPanelRows], const uint8_t* tile, const int8_t* a, size_t group) {
  for (size_t r = 0; r < kPanelRows; ++r)
    for (size_t j = 0; j < group / 8; ++j)
      for (size_t t = 0; t < 4; ++t) {
        const int byte = tile[(2 * j + r / 16) * 64 + (r % 16) * 4 + t];
        dot[r] += (byte & 15) * a[8 * j + t] + (byte >> 4) * a[8 * j + 4 + t];
      }
}

static void dot_i3(int32_t dot[kPanelRows], const uint8_t* tile, const int8_t* a, size_t group) {
  for (size_t r = 0; r < kPanelRows; ++r)
    for (size_t s = 0; s < group / 32; ++s)
      for (size_t t = 0; t < 4; ++t) {
        const uint8_t* planes = tile + (2 * s + r / 16) * 192 + (r % 16) * 4 + t;
        const int l0 = planes[0], l1 = planes[64], h = planes[128];
        const int v[8] = {
            (l0 & 3) | (h & 0x04),             ((l0 >> 4) & 3) | ((h >> 4) & 4),
            ((l0 >> 1) & 6) | ((h >> 1) & 1),  ((l0 >> 5) & 6) | ((h >> 5) & 1),
            (l1 & 3) | ((h >> 1) & 4),         ((l1 >> 4) & 3) | ((h >> 5) & 4),
            ((l1 >> 1) & 6) | (h & 1),         ((l1 >> 5) & 6) | ((h >> 4) & 1),
        };
        for (size_t i = 0; i < 8; ++i) dot[r] += v[i] * a[32 * s + 4 * i + t];
      }
}

static void dot_i5(int32_t dot[kPanelRows], const uint8_t* tile, const int8_t* a, size_t group) {
  for (size_t r = 0; r < kPanelRows; ++r)
    for (size_t s = 0; s < group / 32; ++s)
      for (size_t t = 0; t < 4; ++t) {
        const uint8_t* run = tile + (2 * s + r / 16) * 320 + (r % 16) * 4 + t;
        const int h = run[256];
        for (size_t j = 0; j < 4; ++j) {
          const int x = run[64 * j];
          dot[r] += ((x & 15) | ((h >> j) & 16)) * a[32 * s + 8 * j + t];
          dot[r] += (((x >> 3) & 30) | ((h >> j) & 1)) * a[32 * s + 8 * j + 4 + t];
        }
      }
}

static void dot_i8(int32_t dot[kPanelRows], const uint8_t* tile, const int8_t* a, size_t group) {
  for (size_t r = 0; r < kPanelRows; ++r)
    for (size_t j = 0; j < group / 4; ++j)
      for (size_t t = 0; t < 4; ++t)
        dot[r] += tile[(j / 2 * 4 + r / 16 * 2 + j % 2) * 64 + (r % 16) * 4 + t] * a[4 * j + t];
}

static void linear_int(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a,
                       size_t rows, int bits, GroupDot group_dot, size_t planes = 1) {
  const int32_t offset = 1 << (bits - 1);
  const size_t tile_bytes = 2 * kPanelRows + kPanelRows * group * static_cast<size_t>(bits) / 8;
  for (size_t m = 0; m < rows; ++m) {
    float acc[kPanelRows] = {};
    for (size_t g = 0; g < k / group; ++g) {
      const uint8_t* tile = panel + g * tile_bytes;
      const float a_scale = a->scale[m * a->lds + g];
      const int8_t* q = a->q + m * planes * a->ldq + g * group;
      int32_t dot[kPanelRows] = {};
      if (planes == 2) {
        group_dot(dot, tile + 2 * kPanelRows, q, group);
        for (int32_t& d : dot) d *= 255;
        q += a->ldq;
      }
      for (int32_t& d : dot) d -= offset * a->sum[m * a->lds + g];
      group_dot(dot, tile + 2 * kPanelRows, q, group);
      for (size_t r = 0; r < kPanelRows; ++r) {
        uint16_t w_scale;
        memcpy(&w_scale, tile + 2 * r, sizeof w_scale);
        acc[r] = fmaf(static_cast<float>(dot[r]), from_f16(w_scale) * a_scale, acc[r]);
      }
    }
    memcpy(out + m * ldo, acc, sizeof acc);
  }
}

void linear_i4(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  linear_int(out, ldo, panel, k, group, a, rows, 4, dot_i4);
}

void linear_i3(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  linear_int(out, ldo, panel, k, group, a, rows, 3, dot_i3);
}

void linear_i5(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  linear_int(out, ldo, panel, k, group, a, rows, 5, dot_i5);
}

void linear_i8(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  linear_int(out, ldo, panel, k, group, a, rows, 8, dot_i8);
}

void linear_i8_16(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  linear_int(out, ldo, panel, k, group, a, rows, 8, dot_i8, 2);
}

static float half_at(const uint8_t* at) {
  uint16_t half;
  memcpy(&half, at, sizeof half);
  return from_f16(half);
}

static void linear_affine(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, size_t wide,
                          const ActRows* a, size_t rows, size_t bits, GroupDot group_dot) {
  const uint8_t* tiles = panel + k / wide * 4 * kPanelRows;
  const size_t tile_bytes = 2 * kPanelRows + kPanelRows * group * bits / 8;
  for (size_t m = 0; m < rows; ++m) {
    float acc[kPanelRows] = {};
    for (size_t g = 0; g < k / group; ++g) {
      const uint8_t* line = panel + g * group / wide * 4 * kPanelRows;
      const uint8_t* tile = tiles + g * tile_bytes;
      const float a_scale = a->scale[m * a->lds + g];
      const float sum = static_cast<float>(a->sum[m * a->lds + g]);
      int32_t dot[kPanelRows] = {};
      group_dot(dot, tile + 2 * kPanelRows, a->q + m * a->ldq + g * group, group);
      for (size_t r = 0; r < kPanelRows; ++r) {
        const float scale = half_at(line + 2 * r) * static_cast<float>(tile[r]);
        const float minimum = half_at(line + 2 * (kPanelRows + r)) * static_cast<float>(tile[kPanelRows + r]);
        acc[r] = fmaf(static_cast<float>(dot[r]), scale * a_scale, acc[r]);
        acc[r] = fmaf(sum, minimum * a_scale, acc[r]);
      }
    }
    memcpy(out + m * ldo, acc, sizeof acc);
  }
}

void linear_a4(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, size_t wide, const ActRows* a,
               size_t rows) {
  linear_affine(out, ldo, panel, k, group, wide, a, rows, 4, dot_i4);
}

void linear_a5(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, size_t wide, const ActRows* a,
               size_t rows) {
  linear_affine(out, ldo, panel, k, group, wide, a, rows, 5, dot_i5);
}

void linear_mx4(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows) {
  static const int8_t twice[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  const uint8_t* tiles = panel + (k / group + 1) / 2 * 2 * kPanelRows;
  for (size_t m = 0; m < rows; ++m) {
    float acc[kPanelRows] = {};
    for (size_t g = 0; g < k / group; ++g) {
      const int8_t* q = a->q + m * a->ldq + g * group;
      const uint8_t* tile = tiles + g * kPanelRows * group / 2;
      for (size_t r = 0; r < kPanelRows; ++r) {
        int32_t dot = 0;
        for (size_t i = 0; i < group; ++i) {
          const int pair = tile[(i / 8 * 2 + r / 16) * 64 + (r % 16) * 4 + i % 4];
          dot += twice[i % 8 < 4 ? pair & 15 : pair >> 4] * q[i];
        }
        const uint32_t bits = static_cast<uint32_t>(panel[g * kPanelRows + r]) << 23;
        float scale;
        memcpy(&scale, &bits, sizeof scale);
        acc[r] = fmaf(static_cast<float>(dot), scale * a->scale[m * a->lds + g], acc[r]);
      }
    }
    memcpy(out + m * ldo, acc, sizeof acc);
  }
}

void linear_bf16(float* out, size_t ldo, const uint8_t* panel, size_t k, const float* x, size_t ldx, size_t rows) {
  for (size_t m = 0; m < rows; ++m) {
    float acc[kPanelRows] = {};
    for (size_t i = 0; i < k; ++i)
      for (size_t r = 0; r < kPanelRows; ++r) {
        uint16_t w;
        memcpy(&w, panel + (i * kPanelRows + r) * 2, sizeof w);
        acc[r] = fmaf(x[m * ldx + i], from_bf16(w), acc[r]);
      }
    memcpy(out + m * ldo, acc, sizeof acc);
  }
}

size_t int8_peak(size_t rounds) {
  constexpr size_t lanes = 8;
  int32_t sum[lanes] = {};
  for (size_t i = 0; i < rounds; ++i)
    for (int32_t& one : sum) {
      one += static_cast<int8_t>(i) * 5;
      __asm__ volatile("" : "+r"(one));  // every product is done
    }
  return rounds * lanes;
}

}  // namespace scalar
