// In place of the kernel sets that are left out: their tables stay as they are.
#include "kernels/table.h"

#ifdef BITS_WITHOUT_AVX2
void fill_avx2(KernelTable*) {}
#endif
#ifdef BITS_WITHOUT_AVXVNNI
void fill_avxvnni(KernelTable*) {}
#endif
#ifdef BITS_WITHOUT_AVXVNNI_EVEX
void fill_avxvnni_evex(KernelTable*) {}
#endif
#ifdef BITS_WITHOUT_AVX512
void fill_avx512(KernelTable*) {}
#endif
