// Rounding of weights to integers, eight columns at a time.
#include "kernels.h"
#include "math.h"

namespace avx2 {

static inline __m256 integer(__m256 x, __m256 low, __m256 high) {
  return _mm256_round_ps(_mm256_min_ps(_mm256_max_ps(x, low), high), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static inline __m256 step_of(__m256 scale) {
  const __m256 none = _mm256_cmp_ps(scale, _mm256_setzero_ps(), _CMP_EQ_OQ);
  return _mm256_blendv_ps(scale, _mm256_set1_ps(HUGE_VALF), none);
}

static inline __m256 plus(__m256 sum, __m256 a, __m256 b) { return _mm256_add_ps(sum, _mm256_mul_ps(a, b)); }

void group_scales(float* scale, const RoundJob* job, const float* share, size_t lds, const float* trials,
                  size_t count) {
  const __m256 least = _mm256_set1_ps(1e-12f), one = _mm256_set1_ps(1.0f), zero = _mm256_setzero_ps();
  const __m256 half = _mm256_set1_ps(job->half), low = _mm256_sub_ps(zero, half), high = _mm256_sub_ps(half, one);
  const __m256 turned_low = _mm256_sub_ps(one, half), sign = _mm256_set1_ps(-0.0f);
  __m256 w[kLongestGroup], weighted[kLongestGroup], part[kLongestGroup];
  for (size_t i = 0; i < job->n; i += 8) {
    const size_t n = job->n - i;
    __m256 largest = zero;
    for (size_t j = 0; j < job->group; ++j) {
      w[j] = load(job->w + j * job->ldw + i, n);
      part[j] = lds != 0 ? load(share + j * lds + i, n) : _mm256_set1_ps(share[j]);
      weighted[j] = _mm256_mul_ps(w[j], part[j]);
      largest = _mm256_max_ps(_mm256_andnot_ps(sign, w[j]), largest);
    }
    const __m256 nothing = _mm256_cmp_ps(largest, least, _CMP_LT_OQ);
    const __m256 base = _mm256_div_ps(half, _mm256_blendv_ps(largest, one, nothing));
    __m256 best = _mm256_set1_ps(-1.0f), found = zero;
    const auto better = [&](__m256 product, __m256 square, __m256 turn) {
      const __m256 ratio = _mm256_div_ps(product, _mm256_max_ps(square, least));
      const __m256 gain = _mm256_mul_ps(product, ratio), more = _mm256_cmp_ps(gain, best, _CMP_GT_OQ);
      best = _mm256_blendv_ps(best, gain, more);
      found = _mm256_blendv_ps(found, _mm256_xor_ps(ratio, turn), more);
    };
    for (size_t t = 0; t < count; ++t) {
      const __m256 inverse = _mm256_mul_ps(base, _mm256_set1_ps(trials[t]));
      __m256 product = zero, square = zero, turned_product = zero, turned_square = zero;
      for (size_t j = 0; j < job->group; ++j) {
        const __m256 x = integer(_mm256_mul_ps(w[j], inverse), low, half);
        const __m256 q = _mm256_min_ps(x, high), turned = _mm256_max_ps(x, turned_low);
        product = plus(product, weighted[j], q);
        square = plus(square, _mm256_mul_ps(q, q), part[j]);
        turned_product = plus(turned_product, weighted[j], turned);
        turned_square = plus(turned_square, _mm256_mul_ps(turned, turned), part[j]);
      }
      better(product, square, zero);
      better(turned_product, turned_square, sign);
    }
    found = _mm256_andnot_ps(nothing, found);
    const __m256 step = step_of(found);
    __m256 product = zero, square = zero;
    for (size_t j = 0; j < job->group; ++j) {
      const __m256 q = integer(_mm256_div_ps(w[j], step), low, high);
      product = plus(product, weighted[j], q);
      square = plus(square, _mm256_mul_ps(q, q), part[j]);
    }
    const __m256 refined = _mm256_div_ps(product, _mm256_max_ps(square, least));
    store(scale + i, n, _mm256_blendv_ps(found, refined, _mm256_cmp_ps(square, zero, _CMP_GT_OQ)));
  }
}

void round_forward(float* q, size_t ldq, float* off, size_t ldo, const RoundJob* job, const float* scale,
                   const float* left) {
  const __m256 low = _mm256_set1_ps(-job->half), high = _mm256_set1_ps(job->half - 1.0f);
  __m256 w[kLongestGroup];
  for (size_t i = 0; i < job->n; i += 8) {
    const size_t n = job->n - i;
    const __m256 size = load(scale + i, n), step = step_of(size);
    for (size_t j = 0; j < job->group; ++j) w[j] = load(job->w + j * job->ldw + i, n);
    for (size_t j = 0; j < job->group; ++j) {
      const __m256 one = integer(_mm256_div_ps(w[j], step), low, high);
      const __m256 error = _mm256_sub_ps(load(off + j * ldo + i, n), _mm256_mul_ps(one, size));
      store(q + j * ldq + i, n, one);
      store(off + j * ldo + i, n, error);
      for (size_t k = j + 1; k < job->group; ++k) w[k] = plus(w[k], _mm256_set1_ps(left[j * job->group + k]), error);
    }
  }
}

void round_again(float* q, size_t ldq, const RoundJob* job, const float* scale, const float* inner) {
  const __m256 low = _mm256_set1_ps(-job->half), high = _mm256_set1_ps(job->half - 1.0f);
  __m256 w[kLongestGroup];
  for (size_t i = 0; i < job->n; i += 8) {
    const size_t n = job->n - i;
    const __m256 size = load(scale + i, n), step = step_of(size);
    for (size_t j = 0; j < job->group; ++j) w[j] = load(job->w + j * job->ldw + i, n);
    for (size_t j = 0; j < job->group; ++j) {
      const __m256 curve = _mm256_mul_ps(step, _mm256_set1_ps(inner[j * job->group + j]));
      const __m256 before = load(q + j * ldq + i, n);
      const __m256 best = integer(_mm256_add_ps(_mm256_div_ps(w[j], curve), before), low, high);
      const __m256 change = _mm256_mul_ps(_mm256_sub_ps(best, before), size);
      store(q + j * ldq + i, n, best);
      for (size_t k = j + 1; k < job->group; ++k)
        w[k] = _mm256_sub_ps(w[k], _mm256_mul_ps(_mm256_set1_ps(inner[j * job->group + k]), change));
    }
  }
}

}  // namespace avx2
