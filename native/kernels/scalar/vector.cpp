// Operations on one row of floats.
#include "kernels.h"
#include "math.h"

namespace scalar {

// Where 127 / absmax is not a positive finite number (a zero, tiny, infinite or NaN group) every q is 0; an infinite
// or NaN scale then makes the output NaN, so that a broken input is not hidden.
static void quantize_group(int8_t* q, float* scale, int32_t* sum, const float* x, size_t n) {
  const float absmax = largest_magnitude(x, n);
  const float inverse = 127.0f / absmax;
  const bool usable = inverse > 0.0f && inverse < HUGE_VALF;
  int32_t total = 0;
  for (size_t i = 0; i < n; ++i) {
    const float rounded = usable ? (x[i] * inverse + kRound) - kRound : 0.0f;
    q[i] = static_cast<int8_t>(rounded);
    total += q[i];
  }
  *scale = absmax / 127.0f;
  *sum = total;
}

void quantize(int8_t* q, float* scale, int32_t* sum, const float* x, size_t k, size_t group) {
  for (size_t g = 0; g < k / group; ++g)
    quantize_group(q + g * group, scale + g, sum + g, x + g * group, group);
}

static void quantize_group_16(int8_t* high, int8_t* low, float* scale, int32_t* sum, const float* x, size_t n) {
  const float absmax = largest_magnitude(x, n);
  const float inverse = 32512.0f / absmax;
  const bool usable = inverse > 0.0f && inverse < HUGE_VALF;
  int32_t total = 0;
  for (size_t i = 0; i < n; ++i) {
    const float rounded = usable ? (x[i] * inverse + kRound) - kRound : 0.0f;
    const int32_t value = static_cast<int32_t>(rounded);
    const int32_t nearest = (value + 127 + 255 * 128) / 255 - 128;  // 255 is odd: no ties; positive: division is floor
    high[i] = static_cast<int8_t>(nearest);
    low[i] = static_cast<int8_t>(value - 255 * nearest);
    total += value;
  }
  *scale = absmax / 32512.0f;
  *sum = total;
}

void quantize_16(int8_t* high, int8_t* low, float* scale, int32_t* sum, const float* x, size_t k, size_t group) {
  for (size_t g = 0; g < k / group; ++g)
    quantize_group_16(high + g * group, low + g * group, scale + g, sum + g, x + g * group, group);
}

void rms_norm(float* out, const float* x, const float* w, size_t n, float eps) {
  float lanes[16] = {};
  for (size_t i = 0; i < n; ++i) lanes[i % 16] = fmaf(x[i], x[i], lanes[i % 16]);
  const float inverse = 1.0f / sqrtf(add_lanes(lanes) / static_cast<float>(n) + eps);
  for (size_t i = 0; i < n; ++i) out[i] = (x[i] * inverse) * w[i];
}

void rope(float* x, const float* cos, const float* sin, size_t d) {
  const size_t half = d / 2;
  for (size_t i = 0; i < half; ++i) {
    const float a = x[i];
    const float b = x[i + half];
    x[i] = fmaf(a, cos[i], -(b * sin[i]));
    x[i + half] = fmaf(b, cos[i], a * sin[i]);
  }
}

void gated(float* out, const float* gate, const float* up, size_t n, int activation) {
  if (activation == kSilu)
    for (size_t i = 0; i < n; ++i) out[i] = silu(gate[i]) * up[i];
  else if (activation == kGelu)
    for (size_t i = 0; i < n; ++i) out[i] = gelu(gate[i]) * up[i];
  else
    for (size_t i = 0; i < n; ++i) out[i] = gelu_tanh(gate[i]) * up[i];
}

void add(float* out, const float* a, const float* b, size_t n) {
  for (size_t i = 0; i < n; ++i) out[i] = a[i] + b[i];
}

size_t argmax(const float* x, size_t n) {
  float largest = -HUGE_VALF;
  for (size_t i = 0; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  for (size_t i = 0; i < n; ++i)
    if (x[i] == largest) return i;
  return 0;  // nothing but NaN
}

void exp_all(float* out, const float* x, size_t n) {
  for (size_t i = 0; i < n; ++i) out[i] = exp1(x[i]);
}

}  // namespace scalar
