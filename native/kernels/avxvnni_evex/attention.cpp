#define avxvnni avxvnni_evex
#include "../avxvnni/attention.cpp"
