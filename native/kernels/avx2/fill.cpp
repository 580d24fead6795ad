#include "../table.h"

void fill_avx2(KernelTable* table) { (void)table; }
