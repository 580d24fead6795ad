#include "kernels.h"

void fill_scalar(KernelTable* table) {
  table->quantize = scalar::quantize;
  table->quantize_16 = scalar::quantize_16;
  table->linear_i4 = scalar::linear_i4;
  table->linear_i3 = scalar::linear_i3;
  table->linear_i5 = scalar::linear_i5;
  table->linear_i8 = scalar::linear_i8;
  table->linear_i8_16 = scalar::linear_i8_16;
  table->linear_a4 = scalar::linear_a4;
  table->linear_a5 = scalar::linear_a5;
  table->linear_mx4 = scalar::linear_mx4;
  table->linear_bf16 = scalar::linear_bf16;
  table->int8_peak = scalar::int8_peak;
  table->rms_norm = scalar::rms_norm;
  table->rope = scalar::rope;
  table->gated = scalar::gated;
  table->add = scalar::add;
  table->argmax = scalar::argmax;
  table->exp = scalar::exp_all;
  table->kv_put_8 = scalar::kv_put_8;
  table->kv_put_16 = scalar::kv_put_16;
  table->rotate = scalar::rotate;
  table->kv_put_4 = scalar::kv_put_4;
  table->attend_8 = scalar::attend_8;
  table->attend_16 = scalar::attend_16;
  table->attend_4 = scalar::attend_4;
  table->attend_merge = scalar::attend_merge;
  table->attend_finish = scalar::attend_finish;
  table->delta_rule = scalar::delta_rule;
  table->delta_scan = scalar::delta_scan;
  table->delta_replay = scalar::delta_replay;
  table->group_scales = scalar::group_scales;
  table->round_forward = scalar::round_forward;
  table->round_again = scalar::round_again;
}
