#define avxvnni avxvnni_evex
#include "../avxvnni/linear_int.cpp"
