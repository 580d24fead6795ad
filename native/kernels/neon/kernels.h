// The ARMv8.2 NEON (dot product) kernels. Contracts are in table.h. Flags of this folder: sources.cmake.
#pragma once
#include "../table.h"

namespace neon {

void quantize(int8_t* q, float* scale, int32_t* sum, const float* x, size_t k, size_t group);
void quantize_16(int8_t* high, int8_t* low, float* scale, int32_t* sum, const float* x, size_t k, size_t group);
void linear_i4(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows);
void linear_i3(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows);
void linear_i5(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows);
void linear_i8(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows);
void linear_i8_16(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows);
void linear_mx4(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, const ActRows* a, size_t rows);
void linear_a4(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, size_t wide, const ActRows* a,
               size_t rows);
void linear_a5(float* out, size_t ldo, const uint8_t* panel, size_t k, size_t group, size_t wide, const ActRows* a,
               size_t rows);
void linear_bf16(float* out, size_t ldo, const uint8_t* panel, size_t k, const float* x, size_t ldx, size_t rows);
size_t int8_peak(size_t rounds);
void rms_norm(float* out, const float* x, const float* w, size_t n, float eps);
void rope(float* x, const float* cos, const float* sin, size_t d);
void gated(float* out, const float* gate, const float* up, size_t n, int activation);
void add(float* out, const float* a, const float* b, size_t n);
size_t argmax(const float* x, size_t n);
void exp_all(float* out, const float* x, size_t n);
void kv_put_8(uint8_t* block, size_t token, const float* k, const float* v, size_t head_dim);
void kv_put_16(uint8_t* block, size_t token, const float* k, const float* v, size_t head_dim);
void attend_8(const AttendJob* job);
void attend_16(const AttendJob* job);
void attend_merge(float* M, float* L, float* A, const float* m, const float* l, const float* acc, size_t heads,
                  size_t head_dim);
void attend_finish(float* A, const float* L, size_t heads, size_t head_dim);
void delta_rule(float* to, const float* from, float* out, float* delta, const float* q, const float* k, const float* v,
                float decay, float beta, size_t key_dim, size_t value_dim);
void delta_scan(float* to, const float* from, float* out, const float* delta, const float* q, const float* k, float decay,
                size_t key_dim, size_t value_dim);
void delta_replay(float* to, const float* from, const float* k, const float* delta, float decay, size_t key_dim,
                  size_t value_dim);

}  // namespace neon
