#include "kernels.h"

void fill_neon(KernelTable* table) {
  table->quantize = neon::quantize;
  table->quantize_16 = neon::quantize_16;
  table->linear_i4 = neon::linear_i4;
  table->linear_i3 = neon::linear_i3;
  table->linear_i5 = neon::linear_i5;
  table->linear_i8 = neon::linear_i8;
  table->linear_i8_16 = neon::linear_i8_16;
  table->linear_a4 = neon::linear_a4;
  table->linear_a5 = neon::linear_a5;
  table->linear_mx4 = neon::linear_mx4;
  table->linear_bf16 = neon::linear_bf16;
  table->int8_peak = neon::int8_peak;
  table->rms_norm = neon::rms_norm;
  table->rope = neon::rope;
  table->gated = neon::gated;
  table->add = neon::add;
  table->argmax = neon::argmax;
  table->exp = neon::exp_all;
  table->kv_put_8 = neon::kv_put_8;
  table->kv_put_16 = neon::kv_put_16;
  table->attend_8 = neon::attend_8;
  table->attend_16 = neon::attend_16;
  table->attend_merge = neon::attend_merge;
  table->attend_finish = neon::attend_finish;
  table->delta_rule = neon::delta_rule;
  table->delta_scan = neon::delta_scan;
  table->delta_replay = neon::delta_replay;
}
