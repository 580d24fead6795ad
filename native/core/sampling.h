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
  float presence_penalty = 0;
  float frequency_penalty = 0;
  float dry_multiplier = 0;  // 0: off
  float dry_base = 1.75f;
  size_t dry_allowed = 2;    // longest repetition that costs nothing, in tokens
  double top_n_sigma = 0;    // 0: all
  double typical_p = 1;      // 1: all
  double xtc_probability = 0;
  double xtc_threshold = 0.1;
};

// Tokens; in `dry` what is below 0 equals nothing.
struct Tokens {
  const int32_t* data = nullptr;
  size_t size = 0;
};

struct KnownText {
  Tokens recent;  // what the repeat penalty looks at
  Tokens answer;  // what presence and frequency are counted in
  Tokens dry;     // what repetitions are looked for in
};

// In this order, the first three in place: each token of `recent` once has its logit divided by the repeat penalty
// (multiplied when negative); each token of `answer` loses presence_penalty once and frequency_penalty for each time;
// each token that would make a repetition of n >= dry_allowed tokens longer loses dry_multiplier * dry_base^(n -
// dry_allowed). Kept are: logits within top_n_sigma standard deviations of the largest; the top_k largest (of equals,
// lower indices first); of these the fewest that together reach typical_p, those first whose information is nearest to
// the entropy; of these the fewest likeliest that together reach top_p; of these the ones at least min_p times as
// likely as the likeliest; and, at xtc_probability of all positions, of those at least xtc_threshold likely only the
// least likely one, with all below it. Likelihoods are those of the untempered logits that are left. Then the token
// with the largest logit / temperature + gumbel(hash(seed, position, token)). Logits at or below kForbidden count for
// nothing in deviations and likelihoods. At most `vocab` - 1. Where a logit is NaN or infinite, -1, and no logit is
// changed.
int64_t sample(float* logits, size_t vocab, const KnownText& known, const SamplingSettings& settings, uint64_t seed,
               uint64_t position);

bool all_finite(const float* x, size_t n);

// Gives the lowest float to each of `vocab` finite logits whose bit, the lowest first, is not set; bits that are not
// there are not set.
void hold(float* logits, size_t vocab, const uint8_t* bits, size_t bytes);

// Logits from here down are those of tokens that must not be chosen.
constexpr float kForbidden = -1e30f;

// exp(x) and log(x) of positive normal x, in double, from additions and multiplications only: the same bits on every
// machine, whatever its libm.
double portable_exp(double x);
double portable_log(double x);
