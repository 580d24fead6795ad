#include "kernels.h"

void fill_avxvnni(KernelTable* table) {
  table->prefetch = 0;  // the processor's own prefetcher brings more when left alone
  table->takes_prefetch = true;
  table->takes_second = false;
  table->linear_i4 = avxvnni::linear_i4;
  table->linear_i3 = avxvnni::linear_i3;
  table->linear_i5 = avxvnni::linear_i5;
  table->linear_i8 = avxvnni::linear_i8;
  table->linear_i8_16 = avxvnni::linear_i8_16;
  table->linear_a4 = avxvnni::linear_a4;
  table->linear_a5 = avxvnni::linear_a5;
  table->linear_mx4 = avxvnni::linear_mx4;
  table->int8_peak = avxvnni::int8_peak;
  table->attend_8 = avxvnni::attend_8;
}
