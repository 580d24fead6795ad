// The one sampler: a pure function of logits, settings, seed and position. The same for plain decoding, drafts and
// their verification, so that the text never depends on what made it fast.
#pragma once
#include <cstddef>
#include <cstdint>

struct SamplingSettings {
  float temperature = 0;    // 0: the lowest index of the largest logit
  size_t top_k = 0;         // 0: all
  double top_p = 1;         // 1: all
  double min_p = 0;         // 0: all
  float repeat_penalty = 1;
};

// In this order: each token of `recent` once has its logit divided by the penalty (multiplied when negative), in place;
// the top_k largest are kept (of equals, lower indices first); of these the fewest likeliest that together reach
// top_p; of these the ones at least min_p times as likely as the likeliest. Likelihoods are those of the untempered
// logits that are left. Then the token with the largest logit / temperature + gumbel(hash(seed, position, token)).
// At most `vocab` - 1. Where a logit is NaN or infinite, -1, and no logit is changed.
int64_t sample(float* logits, size_t vocab, const int32_t* recent, size_t n_recent, const SamplingSettings& settings,
               uint64_t seed, uint64_t position);

// exp(x) and log(x) of positive normal x, in double, from additions and multiplications only: the same bits on every
// machine, whatever its libm.
double portable_exp(double x);
double portable_log(double x);
