#define avxvnni avxvnni_evex
#define fill_avxvnni fill_avxvnni_evex
#include "../avxvnni/fill.cpp"
