#include "core/route.h"

#include <algorithm>
#include <cmath>

namespace {

// What an expert is chosen by. NaN is below all numbers.
float worth(const MoeOp& op, const float* score, size_t e) {
  const float value = op.choice_bias.empty() ? score[e] : score[e] + op.choice_bias[e];
  return value == value ? value : -HUGE_VALF;
}

// Marks the top_groups groups whose best two experts sum to the most; of equal ones the lower.
void choose_groups(const MoeOp& op, const float* score, bool* chosen) {
  float sums[MoeOp::kMostGroups];
  const size_t size = op.experts.size() / op.groups;
  for (size_t g = 0; g < op.groups; ++g) {
    float best = -HUGE_VALF, second = -HUGE_VALF;
    for (size_t e = g * size; e < (g + 1) * size; ++e) {
      const float value = worth(op, score, e);
      second = std::max(second, std::min(best, value));
      best = std::max(best, value);
    }
    sums[g] = best + second;
    chosen[g] = false;
  }
  for (size_t n = 0; n < op.top_groups; ++n) {
    size_t best = op.groups;
    for (size_t g = 0; g < op.groups; ++g)
      if (!chosen[g] && (best == op.groups || sums[g] > sums[best])) best = g;
    chosen[best] = true;
  }
}

}  // namespace

float sigmoid(const KernelTable& k, float x) {
  float e = -x;
  k.exp(&e, &e, 1);
  return 1.0f / (1.0f + e);
}

void choose_experts(const MoeOp& op, const KernelTable& k, float* score, size_t* expert, float* weight) {
  const size_t count = op.experts.size();
  if (!op.router_bias.empty()) k.add(score, score, op.router_bias.data(), count);
  if (op.score == MoeOp::kSoftmax) {
    float largest = -HUGE_VALF, sum = 0;
    for (size_t e = 0; e < count; ++e) largest = score[e] > largest ? score[e] : largest;
    for (size_t e = 0; e < count; ++e) score[e] -= largest;
    k.exp(score, score, count);
    for (size_t e = 0; e < count; ++e) sum += score[e];
    for (size_t e = 0; e < count; ++e) score[e] /= sum;
  } else {
    for (size_t e = 0; e < count; ++e) score[e] = sigmoid(k, score[e]);
  }
  bool in_group[MoeOp::kMostGroups] = {true};
  if (op.groups > 1) choose_groups(op, score, in_group);
  size_t chosen = 0;
  for (size_t e = 0; e < count; ++e) {  // the chosen so far, best first
    if (!in_group[e / (count / op.groups)]) continue;
    size_t at = chosen;
    while (at > 0 && worth(op, score, expert[at - 1]) < worth(op, score, e)) --at;
    if (at >= op.top_k) continue;
    chosen = std::min(chosen + 1, op.top_k);
    for (size_t i = chosen - 1; i > at; --i) expert[i] = expert[i - 1];
    expert[at] = e;
  }
  float sum = 0;
  for (size_t i = 0; i < op.top_k; ++i) sum += score[expert[i]];
  sum = (sum < op.least_sum ? op.least_sum : sum) + op.added_sum;
  for (size_t i = 0; i < op.top_k; ++i) {
    const float value = score[expert[i]];
    weight[i] = (op.renormalise ? value / sum : value) * op.scale;
    if (!op.expert_scale.empty()) weight[i] *= op.expert_scale[expert[i]];
  }
}
