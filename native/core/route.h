// Which experts a row goes to, and with what weights.
#pragma once
#include "core/program.h"

// `score`, what the router gave, becomes the scores of all experts; `expert` and `weight` get those of the op.top_k that are
// chosen, best first. Of equal scores the lower expert is chosen; NaN stays NaN as a weight.
void choose_experts(const MoeOp& op, const KernelTable& k, float* score, size_t* expert, float* weight);

float sigmoid(const KernelTable& k, float x);
