#include "kernels.h"

void fill_avx2(KernelTable* table) {
  table->prefetch = 1024;
  table->takes_prefetch = true;
  table->takes_second = true;
  table->quantize = avx2::quantize;
  table->quantize_16 = avx2::quantize_16;
  table->linear_i4 = avx2::linear_i4;
  table->linear_i3 = avx2::linear_i3;
  table->linear_i5 = avx2::linear_i5;
  table->linear_i8 = avx2::linear_i8;
  table->linear_i8_16 = avx2::linear_i8_16;
  table->linear_a4 = avx2::linear_a4;
  table->linear_a5 = avx2::linear_a5;
  table->linear_mx4 = avx2::linear_mx4;
  table->linear_bf16 = avx2::linear_bf16;
  table->int8_peak = avx2::int8_peak;
  table->rms_norm = avx2::rms_norm;
  table->rope = avx2::rope;
  table->gated = avx2::gated;
  table->add = avx2::add;
  table->argmax = avx2::argmax;
  table->exp = avx2::exp_all;
  table->kv_put_8 = avx2::kv_put_8;
  table->kv_put_16 = avx2::kv_put_16;
  table->rotate = avx2::rotate;
  table->kv_put_4 = avx2::kv_put_4;
  table->attend_8 = avx2::attend_8;
  table->attend_16 = avx2::attend_16;
  table->attend_4 = avx2::attend_4;
  table->attend_merge = avx2::attend_merge;
  table->attend_finish = avx2::attend_finish;
  table->delta_rule = avx2::delta_rule;
  table->delta_scan = avx2::delta_scan;
  table->delta_replay = avx2::delta_replay;
  table->group_scales = avx2::group_scales;
  table->round_forward = avx2::round_forward;
  table->round_again = avx2::round_again;
}
