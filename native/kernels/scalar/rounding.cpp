// Rounding of weights to integers. Columns do not depend on each other.
#include "kernels.h"
#include "math.h"

namespace scalar {

static const float kLeast = 1e-12f;

static inline float integer(float x, float low, float high) {
  x = x > low ? x : low;
  x = x < high ? x : high;
  return (x + kRound) - kRound;
}

static inline float step_of(float scale) { return scale == 0.0f ? HUGE_VALF : scale; }

void group_scales(float* scale, const RoundJob* job, const float* share, size_t lds, const float* trials,
                  size_t count) {
  const float half = job->half;
  for (size_t i = 0; i < job->n; ++i) {
    const float* w = job->w + i;
    const auto part = [&](size_t j) { return lds != 0 ? share[j * lds + i] : share[j]; };
    float largest = 0.0f;
    for (size_t j = 0; j < job->group; ++j) largest = fabsf(w[j * job->ldw]) > largest ? fabsf(w[j * job->ldw]) : largest;
    const bool zero = largest < kLeast;
    const float base = half / (zero ? 1.0f : largest);
    float best = -1.0f, found = 0.0f;
    for (size_t t = 0; t < count; ++t) {
      const float inverse = base * trials[t];
      for (int turned = 0; turned < 2; ++turned) {
        const float low = turned ? 1.0f - half : -half, high = turned ? half : half - 1.0f;
        float product = 0.0f, square = 0.0f;
        for (size_t j = 0; j < job->group; ++j) {
          const float q = integer(w[j * job->ldw] * inverse, low, high);
          product += (w[j * job->ldw] * part(j)) * q;
          square += (q * q) * part(j);
        }
        const float ratio = product / (square > kLeast ? square : kLeast);
        const float gain = product * ratio;
        if (gain > best) {
          best = gain;
          found = turned ? -ratio : ratio;
        }
      }
    }
    if (zero) found = 0.0f;
    const float step = step_of(found);
    float product = 0.0f, square = 0.0f;
    for (size_t j = 0; j < job->group; ++j) {
      const float q = integer(w[j * job->ldw] / step, -half, half - 1.0f);
      product += (w[j * job->ldw] * part(j)) * q;
      square += (q * q) * part(j);
    }
    scale[i] = square > 0.0f ? product / (square > kLeast ? square : kLeast) : found;
  }
}

void round_forward(float* q, size_t ldq, float* off, size_t ldo, const RoundJob* job, const float* scale,
                   const float* left) {
  float w[kLongestGroup];
  for (size_t i = 0; i < job->n; ++i) {
    const float step = step_of(scale[i]);
    for (size_t j = 0; j < job->group; ++j) w[j] = job->w[j * job->ldw + i];
    for (size_t j = 0; j < job->group; ++j) {
      const float one = integer(w[j] / step, -job->half, job->half - 1.0f);
      const float error = off[j * ldo + i] - one * scale[i];
      q[j * ldq + i] = one;
      off[j * ldo + i] = error;
      for (size_t k = j + 1; k < job->group; ++k) w[k] += left[j * job->group + k] * error;
    }
  }
}

void round_again(float* q, size_t ldq, const RoundJob* job, const float* scale, const float* inner) {
  float w[kLongestGroup];
  for (size_t i = 0; i < job->n; ++i) {
    const float step = step_of(scale[i]);
    for (size_t j = 0; j < job->group; ++j) w[j] = job->w[j * job->ldw + i];
    for (size_t j = 0; j < job->group; ++j) {
      const float before = q[j * ldq + i];
      const float best = integer(w[j] / (step * inner[j * job->group + j]) + before, -job->half, job->half - 1.0f);
      const float change = (best - before) * scale[i];
      q[j * ldq + i] = best;
      for (size_t k = j + 1; k < job->group; ++k) w[k] -= inner[j * job->group + k] * change;
    }
  }
}

}  // namespace scalar
