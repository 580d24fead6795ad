#include "kernels.h"

void fill_neon_i8mm(KernelTable* table) {
  table->linear_i4 = neon_i8mm::linear_i4;
  table->linear_i3 = neon_i8mm::linear_i3;
  table->linear_i5 = neon_i8mm::linear_i5;
  table->linear_i8 = neon_i8mm::linear_i8;
  table->linear_i8_16 = neon_i8mm::linear_i8_16;
  table->linear_a4 = neon_i8mm::linear_a4;
  table->linear_a5 = neon_i8mm::linear_a5;
  table->linear_mx4 = neon_i8mm::linear_mx4;
  table->int8_peak = neon_i8mm::int8_peak;
}
