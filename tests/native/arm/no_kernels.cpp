// In place of the x86 kernels, which have tests of their own: every table stays scalar.
#include "kernels/table.h"

void fill_avx2(KernelTable*) {}
void fill_avxvnni(KernelTable*) {}
void fill_avxvnni_evex(KernelTable*) {}
void fill_avx512(KernelTable*) {}
