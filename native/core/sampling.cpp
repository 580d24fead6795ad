#include "core/sampling.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr double kForbiddenFloor = static_cast<double>(kForbidden);
constexpr double kLn2 = 0.693147180559945309417;

struct Candidate {
  float logit;
  uint32_t token;
};

// Descending; of equal logits the lower token first. A strict total order, so every way of sorting agrees.
bool before(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

uint64_t mix(uint64_t x) {  // the finalizer of splitmix64
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

uint64_t hash(uint64_t seed, uint64_t position, uint64_t token) {
  constexpr uint64_t golden = 0x9e3779b97f4a7c15u;
  return mix(mix(mix(seed + golden) + position * golden) + (token + 1) * golden);
}

constexpr uint64_t kUnit = uint64_t{1} << 53;

// -log(-log(u)) for u = (draw + 1/2) / 2^53. Near 1, u rounds; log(1 - rest) is taken from the rest, which does not.
double gumbel(uint64_t draw) {
  const double rest = (static_cast<double>(kUnit - 1 - draw) + 0.5) / static_cast<double>(kUnit);  // 1 - u
  const double minus_log = rest < 1e-6 ? rest * (1 + rest * (0.5 + rest / 3)) : -portable_log(1 - rest);
  return -portable_log(minus_log);
}

// No gumbel of this draw is larger: -log(u) >= 1 - u, and 1 - u > 2^-(zeros + 1) for `zeros` leading zeros.
double gumbel_bound(uint64_t draw) {
  const int zeros = std::countl_zero(kUnit - 1 - draw) - 11;
  return (zeros + 1) * kLn2 + 1e-9;
}

std::vector<int32_t> sorted_tokens(const Tokens& tokens, size_t vocab) {
  std::vector<int32_t> found;
  for (size_t i = 0; i < tokens.size; ++i)
    if (tokens.data[i] >= 0 && static_cast<size_t>(tokens.data[i]) < vocab) found.push_back(tokens.data[i]);
  std::sort(found.begin(), found.end());
  return found;
}

void penalize(float* logits, size_t vocab, const Tokens& recent, float penalty) {
  if (penalty == 1.0f) return;
  std::vector<int32_t> once = sorted_tokens(recent, vocab);
  once.erase(std::unique(once.begin(), once.end()), once.end());
  for (const int32_t token : once) {
    float& logit = logits[token];
    logit = logit > 0 ? logit / penalty : logit * penalty;
  }
}

void penalize_counts(float* logits, size_t vocab, const Tokens& answer, float presence, float frequency) {
  if (presence == 0 && frequency == 0) return;
  const std::vector<int32_t> all = sorted_tokens(answer, vocab);
  for (size_t i = 0, next = 0; i < all.size(); i = next) {
    while (next < all.size() && all[next] == all[i]) ++next;
    logits[all[i]] -= presence + frequency * static_cast<float>(next - i);
  }
}

// Repetitions count up to this length: beyond it the penalty is beyond all logits anyway.
constexpr size_t kLongestRepetition = 64;

// How many tokens before `at` are those before the end of `text`.
size_t repetition(const Tokens& text, size_t at) {
  size_t n = 0;
  while (n < at && n < kLongestRepetition && text.data[at - 1 - n] >= 0 &&
         text.data[at - 1 - n] == text.data[text.size - 1 - n])
    ++n;
  return n;
}

// "Don't repeat yourself", as p-e-w described it in text-generation-webui (pull request 5677).
void penalize_repetitions(float* logits, size_t vocab, const Tokens& text, const SamplingSettings& settings) {
  if (settings.dry_multiplier == 0 || text.size < 2) return;
  std::vector<std::pair<int32_t, size_t>> longer;  // a token, and the repetition that it would make longer
  for (size_t at = 1; at < text.size; ++at) {
    const int32_t next = text.data[at];
    const size_t n = next < 0 || static_cast<size_t>(next) >= vocab ? 0 : repetition(text, at);
    if (n > 0 && n >= settings.dry_allowed) longer.emplace_back(next, n);
  }
  std::sort(longer.begin(), longer.end());
  for (size_t i = 0; i < longer.size(); ++i) {
    const auto [token, n] = longer[i];
    if (i + 1 < longer.size() && longer[i + 1].first == token) continue;  // the longest one counts
    double penalty = settings.dry_multiplier;
    for (size_t more = settings.dry_allowed; more < n; ++more) penalty *= static_cast<double>(settings.dry_base);
    const double left = static_cast<double>(logits[token]) - penalty;
    logits[token] = static_cast<float>(std::max(left, static_cast<double>(std::numeric_limits<float>::lowest())));
  }
}

}  // namespace

// Without a branch, so that compilers use vectors.
bool all_finite(const float* x, size_t n) {
  constexpr uint32_t exponent = 0x7f800000;
  uint32_t any = 0;
  for (size_t i = 0; i < n; ++i) any |= (std::bit_cast<uint32_t>(x[i]) & exponent) == exponent;
  return any == 0;
}

void hold(float* logits, size_t vocab, const uint8_t* bits, size_t bytes) {
  constexpr float lowest = std::numeric_limits<float>::lowest(), highest = std::numeric_limits<float>::max();
  static const auto ceilings = [] {
    std::array<std::array<float, 8>, 256> of{};
    for (size_t byte = 0; byte < of.size(); ++byte)
      for (size_t j = 0; j < 8; ++j) of[byte][j] = byte >> j & 1 ? highest : lowest;
    return of;
  }();
  const size_t whole = std::min(vocab / 8, bytes);
  for (size_t i = 0; i < whole; ++i)
    for (size_t j = 0; j < 8; ++j) logits[8 * i + j] = std::min(logits[8 * i + j], ceilings[bits[i]][j]);
  for (size_t i = 8 * whole; i < vocab; ++i)
    if (i / 8 >= bytes || !(bits[i / 8] >> i % 8 & 1)) logits[i] = lowest;
}

namespace {

// Few logits are among the largest: whole blocks are passed over by vector comparisons.
constexpr size_t kBlock = 32;
bool any_above(const float* logits, float floor) {
  int any = 0;
  for (size_t i = 0; i < kBlock; ++i) any |= logits[i] > floor;
  return any != 0;
}

// The largest `k`, descending. A heap of k, worst on top.
std::vector<Candidate> largest(const float* logits, size_t vocab, size_t k) {
  std::vector<Candidate> best;
  best.reserve(k);
  const auto enter = [&](size_t i) {
    const float logit = logits[i];
    if (best.size() == k && !(logit > best.front().logit)) return;  // equal ones: the lower token is in already
    if (best.size() == k) {
      std::pop_heap(best.begin(), best.end(), before);
      best.pop_back();
    }
    best.push_back({logit, static_cast<uint32_t>(i)});
    std::push_heap(best.begin(), best.end(), before);
  };
  size_t i = 0;
  for (; i < k && i < vocab; ++i) enter(i);
  for (; i + kBlock <= vocab; i += kBlock)
    for (size_t j = any_above(logits + i, best.front().logit) ? 0 : kBlock; j < kBlock; ++j) enter(i + j);
  for (; i < vocab; ++i) enter(i);
  std::sort_heap(best.begin(), best.end(), before);
  return best;
}

// Likelihood against the likeliest. Below e^-45 it counts as nothing: a whole vocabulary of those changes no bit.
double weight(float logit, float top) {
  const double gap = static_cast<double>(logit) - static_cast<double>(top);
  return gap > -45 ? portable_exp(gap) : 0;
}

// How many of `sorted` have the weight `goal` together, at least one; 0 if all of them have less.
size_t reach(const std::vector<Candidate>& sorted, double goal) {
  double sum = 0;
  for (size_t i = 0; i < sorted.size(); ++i) {
    sum += weight(sorted[i].logit, sorted[0].logit);
    if (sum >= goal) return i + 1;
  }
  return 0;
}

// Cuts by top_k, then by top_p; descending. Called when there is something to cut.
std::vector<Candidate> likeliest(const float* logits, size_t vocab, float top, size_t top_k, double top_p) {
  const bool by_top_k = top_k > 0 && top_k < vocab;
  std::vector<Candidate> candidates = largest(logits, vocab, by_top_k ? top_k : std::min<size_t>(vocab, 256));
  if (top_p >= 1) return candidates;
  double total = 0;
  if (by_top_k)
    for (const Candidate& c : candidates) total += weight(c.logit, top);
  else
    for (size_t i = 0; i < vocab; ++i) total += weight(logits[i], top);
  size_t n = reach(candidates, top_p * total);
  while (n == 0 && candidates.size() < vocab && !by_top_k) {  // flat: take more, rarely all
    candidates = largest(logits, vocab, std::min(vocab, candidates.size() * 8));
    n = reach(candidates, top_p * total);
  }
  if (n > 0) candidates.resize(n);
  return candidates;
}

// The lowest logit within `n` standard deviations of `top`.
double sigma_floor(const float* logits, size_t vocab, float top, double n) {
  double sum = 0, squares = 0, count = 0;
  for (size_t i = 0; i < vocab; ++i)
    if (logits[i] > kForbidden) sum += static_cast<double>(logits[i]), ++count;
  const double mean = sum / std::max(count, 1.0);
  for (size_t i = 0; i < vocab; ++i) {
    const double gap = static_cast<double>(logits[i]) - mean;
    if (logits[i] > kForbidden) squares += gap * gap;
  }
  return static_cast<double>(top) - n * std::sqrt(squares / std::max(count, 1.0));
}

double total_weight(const std::vector<Candidate>& sorted) {
  double total = 0;
  for (const Candidate& c : sorted) total += weight(c.logit, sorted[0].logit);
  return total;
}

// Locally typical sampling (Meister et al. 2022). `sorted` stays so.
void keep_typical(std::vector<Candidate>& sorted, double p) {
  struct Typical {
    double distance;
    Candidate candidate;
    double share;
  };
  const double total = total_weight(sorted), log_total = portable_log(total);
  const auto information = [&](const Candidate& c) {
    return log_total + static_cast<double>(sorted[0].logit) - static_cast<double>(c.logit);
  };
  double entropy = 0;
  for (const Candidate& c : sorted) {
    const double share = weight(c.logit, sorted[0].logit) / total;
    if (share > 0) entropy += share * information(c);
  }
  std::vector<Typical> order;
  for (const Candidate& c : sorted) {
    const double share = weight(c.logit, sorted[0].logit) / total;
    order.push_back({std::abs(information(c) - entropy), c, share});
  }
  std::sort(order.begin(), order.end(), [](const Typical& a, const Typical& b) {
    return a.distance < b.distance || (a.distance == b.distance && before(a.candidate, b.candidate));
  });
  double sum = 0;
  sorted.clear();
  for (const Typical& one : order) {
    sorted.push_back(one.candidate);
    sum += one.share;
    if (sum >= p) break;
  }
  std::sort(sorted.begin(), sorted.end(), before);
}

constexpr uint64_t kXtcDraw = uint64_t{1} << 40;  // no token

// "Exclude top choices", as p-e-w described it in text-generation-webui (pull request 6335).
void exclude_top(std::vector<Candidate>& sorted, double probability, double threshold, uint64_t seed,
                 uint64_t position) {
  const double draw = static_cast<double>(hash(seed, position, kXtcDraw) >> 11) / static_cast<double>(kUnit);
  if (draw >= probability) return;
  const double total = total_weight(sorted);
  size_t n = 0;
  while (n < sorted.size() && weight(sorted[n].logit, sorted[0].logit) >= threshold * total) ++n;
  if (n > 1) sorted.erase(sorted.begin(), sorted.begin() + static_cast<ptrdiff_t>(n - 1));
}

// All cuts, one after the other; descending.
std::vector<Candidate> left_over(const float* logits, size_t vocab, float top, const SamplingSettings& s,
                                 uint64_t seed, uint64_t position) {
  const double floor = s.top_n_sigma > 0 ? sigma_floor(logits, vocab, top, s.top_n_sigma) : kForbiddenFloor;
  std::vector<Candidate> sorted;
  for (size_t i = 0; i < vocab; ++i)
    if (static_cast<double>(logits[i]) >= floor) sorted.push_back({logits[i], static_cast<uint32_t>(i)});
  if (sorted.empty()) sorted = largest(logits, vocab, 1);  // all are forbidden
  const size_t most = s.top_k > 0 ? std::min(s.top_k, sorted.size()) : sorted.size();
  std::partial_sort(sorted.begin(), sorted.begin() + static_cast<ptrdiff_t>(most), sorted.end(), before);
  sorted.resize(most);
  if (s.typical_p < 1) keep_typical(sorted, s.typical_p);
  if (s.top_p < 1)
    if (const size_t n = reach(sorted, s.top_p * total_weight(sorted)); n > 0) sorted.resize(n);
  const double least = s.min_p > 0 ? static_cast<double>(sorted[0].logit) + portable_log(s.min_p) : kForbiddenFloor;
  while (sorted.size() > 1 && static_cast<double>(sorted.back().logit) < least) sorted.pop_back();
  if (s.xtc_probability > 0) exclude_top(sorted, s.xtc_probability, s.xtc_threshold, seed, position);
  return sorted;
}

// No gumbel is larger, since no draw has more leading zeros than it has bits.
constexpr double kMostGumbel = 54 * kLn2 + 1e-9;

// Follows the largest score; sees at once that most tokens cannot reach it, and computes no logarithm for them.
class Race {
 public:
  Race(double temperature, uint64_t seed, uint64_t position)
      : temperature_(temperature), seed_(seed), position_(position) {}

  void enter(float logit, uint32_t token) {
    const double base = static_cast<double>(logit) / temperature_;
    const uint64_t draw = hash(seed_, position_, token) >> 11;
    if (base + gumbel_bound(draw) < best_) return;
    const double score = base + gumbel(draw);
    if (score > best_ || (score == best_ && token < winner_)) best_ = score, winner_ = token;
  }
  uint32_t winner() const { return winner_; }

  // A logit at or below this cannot win any more, whatever it draws.
  float floor() const {
    const double logit = (best_ - kMostGumbel) * temperature_;
    return static_cast<float>(logit - std::abs(logit) * 1e-6 - 1e-30);
  }

 private:
  double temperature_;
  uint64_t seed_, position_;
  double best_ = -std::numeric_limits<double>::infinity();
  uint32_t winner_ = 0;
};

constexpr auto kInverseFactorials = [] {
  std::array<double, 15> values{1};
  for (size_t i = 1; i < values.size(); ++i) values[i] = values[i - 1] / static_cast<double>(i);
  return values;
}();

}  // namespace

double portable_log(double x) {
  const auto bits = std::bit_cast<uint64_t>(x);
  auto exponent = static_cast<int>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0x000fffffffffffffu) | 0x3ff0000000000000u);
  if (m > 1.4142135623730951) m *= 0.5, ++exponent;
  // log(m) = 2 atanh(s) with s = (m - 1) / (m + 1), |s| < 0.1716: eleven terms of the series reach 2^-53.
  const double s = (m - 1) / (m + 1), s2 = s * s;
  double sum = 0;
  for (int n = 21; n >= 1; n -= 2) sum = sum * s2 + 1.0 / n;
  return exponent * kLn2 + 2 * s * sum;
}

double portable_exp(double x) {
  if (x < -700) return 0;
  if (x > 700) return std::numeric_limits<double>::infinity();
  const double n = std::floor(x / kLn2 + 0.5);
  const double r = x - n * kLn2;  // |r| < 0.35
  double sum = kInverseFactorials[14];
  for (int i = 13; i >= 0; --i) sum = sum * r + kInverseFactorials[i];
  return sum * std::bit_cast<double>(static_cast<uint64_t>(static_cast<int64_t>(n) + 1023) << 52);
}

int64_t sample(float* logits, size_t vocab, const KnownText& known, const SamplingSettings& settings, uint64_t seed,
               uint64_t position) {
  if (!all_finite(logits, vocab)) return -1;
  penalize(logits, vocab, known.recent, settings.repeat_penalty);
  penalize_counts(logits, vocab, known.answer, settings.presence_penalty, settings.frequency_penalty);
  penalize_repetitions(logits, vocab, known.dry, settings);
  const Candidate top = largest(logits, vocab, 1)[0];
  if (settings.temperature <= 0 || std::isinf(top.logit)) return top.token;
  Race race(static_cast<double>(settings.temperature), seed, position);
  if (settings.top_n_sigma > 0 || settings.typical_p < 1 || settings.xtc_probability > 0) {
    for (const Candidate& c : left_over(logits, vocab, top.logit, settings, seed, position)) race.enter(c.logit, c.token);
    return race.winner();
  }
  // log of the smallest likelihood kept, against the likeliest.
  const double floor = settings.min_p > 0
                           ? static_cast<double>(top.logit) + portable_log(settings.min_p)
                           : -std::numeric_limits<double>::infinity();
  const auto enter = [&](float logit, uint32_t token) {
    if (static_cast<double>(logit) >= floor && logit > kNever) race.enter(logit, token);
  };
  if ((settings.top_k == 0 || settings.top_k >= vocab) && settings.top_p >= 1) {
    enter(top.logit, top.token);  // a high score to begin with
    const float least = race.floor();
    size_t i = 0;
    for (; i + kBlock <= vocab; i += kBlock)
      for (size_t j = any_above(logits + i, least) ? 0 : kBlock; j < kBlock; ++j)
        if (logits[i + j] > least) enter(logits[i + j], static_cast<uint32_t>(i + j));
    for (; i < vocab; ++i) enter(logits[i], static_cast<uint32_t>(i));
    return race.winner();
  }
  for (const Candidate& c : likeliest(logits, vocab, top.logit, settings.top_k, settings.top_p)) enter(c.logit, c.token);
  return race.winner();
}
