// Weights times rows, on all threads.
#pragma once
#include <cstddef>
#include <cstdint>

#include "core/step.h"
#include "core/weight.h"

// Rows made ready for one weight: quantized by its groups, or float for bf16.
struct Operand {
  ActRows q;
  const float* x;
  size_t ldx;
};

// Norms (unless `norm` is null) and quantizes (unless the weight is bf16) `rows` rows of `from`. With `pick`, row i is
// row pick[i] - pick_base of `from`. False: interrupted.
struct Source {
  const float* rows;
  size_t ld;
  const Norm* norm = nullptr;
  const int32_t* pick = nullptr;
  size_t pick_base = 0;
};
[[nodiscard]] bool make_ready(Operand* operand, const Step& step, Lane& lane, const Weight& weight, const Source& from,
                              size_t rows);

// out[m * ldo + r] for the 32 rows r of panel `panel`.
void run_panel(const Step& step, const Weight& weight, size_t panel, const Operand& operand, size_t rows, float* out,
               size_t ldo);

// x += weight * operand (+ bias), through `post_norm` if there is one. Ends its last phase. False: interrupted.
[[nodiscard]] bool add_to_stream(const Step& step, Lane& lane, const Weight& weight, const Operand& operand,
                                 const Floats& bias, const Floats& post_norm, float eps);
