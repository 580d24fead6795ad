#include "kernels.h"

void fill_avx512(KernelTable* table) {
  table->prefetch = 0;
  table->takes_prefetch = false;
  table->takes_second = false;
  table->quantize = avx512::quantize;
  table->quantize_16 = avx512::quantize_16;
  table->linear_i4 = avx512::linear_i4;
  table->linear_i3 = avx512::linear_i3;
  table->linear_i5 = avx512::linear_i5;
  table->linear_i8 = avx512::linear_i8;
  table->linear_i8_16 = avx512::linear_i8_16;
  table->linear_a4 = avx512::linear_a4;
  table->linear_a5 = avx512::linear_a5;
  table->linear_mx4 = avx512::linear_mx4;
  table->linear_bf16 = avx512::linear_bf16;
  table->int8_peak = avx512::int8_peak;
  table->rms_norm = avx512::rms_norm;
  table->rope = avx512::rope;
  table->gated = avx512::gated;
  table->add = avx512::add;
  table->argmax = avx512::argmax;
  table->exp = avx512::exp_all;
  table->kv_put_8 = avx512::kv_put_8;
  table->kv_put_16 = avx512::kv_put_16;
  table->rotate = avx512::rotate;
  table->kv_put_4 = avx512::kv_put_4;
  table->attend_8 = avx512::attend_8;
  table->attend_16 = avx512::attend_16;
  table->attend_4 = avx512::attend_4;
  table->attend_merge = avx512::attend_merge;
  table->attend_finish = avx512::attend_finish;
  table->delta_rule = avx512::delta_rule;
  table->delta_scan = avx512::delta_scan;
  table->delta_replay = avx512::delta_replay;
}
