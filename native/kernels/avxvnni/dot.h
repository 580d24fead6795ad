// Four unsigned times four signed bytes of each lane, added to it. The instruction has two encodings, and a processor
// may have either: this folder is built for the older registers (VEX), avxvnni_evex/ builds the same for the newer ones.
#pragma once
#include <immintrin.h>

#if defined(__AVX512VNNI__)
static inline __m256i add_dot(__m256i sum, __m256i u, __m256i s) { return _mm256_dpbusd_epi32(sum, u, s); }
#else
static inline __m256i add_dot(__m256i sum, __m256i u, __m256i s) { return _mm256_dpbusd_avx_epi32(sum, u, s); }
#endif
