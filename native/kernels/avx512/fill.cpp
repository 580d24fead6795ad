#include "../table.h"

void fill_avx512(KernelTable* table) { (void)table; }
