// Weights times rows, on all threads.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "core/step.h"
#include "core/weight.h"

// The rows that a weight is to be multiplied with: normed (unless `norm` is null). With `pick`, row i is row
// pick[i] - pick_base of `rows`.
struct Source {
  const float* rows;
  size_t ld;
  const Norm* norm = nullptr;
  const int32_t* pick = nullptr;
  size_t pick_base = 0;
};

// Rows made ready for one weight: quantized by its groups, or float for bf16.
struct Operand {
  ActRows q{};
  const float* x = nullptr;
  size_t ldx = 0;
  bool pending = false;  // few rows: each thread makes its own ready with its first panel
  Source source{};
};

// Makes `rows` rows of `from` ready for `weight`. False: leave the step.
[[nodiscard]] bool make_ready(Operand* operand, const Step& step, Lane& lane, const Weight& weight, const Source& from,
                              size_t rows);

// Rows as floats, which a weight of bf16 reads.
[[nodiscard]] bool make_floats_ready(Operand* operand, const Step& step, Lane& lane, const Weight& weight,
                                     const Source& from, size_t rows);

// The same, always for all threads together: for operands of which threads take different rows.
[[nodiscard]] bool make_shared_ready(Operand* operand, const Step& step, Lane& lane, const Weight& weight,
                                     const Source& from, size_t rows);
// Columns [first, first + n) of row m of `to`, whole groups of a weight of this shape.
void quantize_columns(const Step& step, const WeightShape& shape, const Scratch::Quantized& to, size_t m, size_t first,
                      const float* x, size_t n);

// Who makes whole groups of a weight's columns quantizes them as they come, which saves a phase: `produce` takes columns
// [first, first + n) of row m; when all are there, `produced` is the operand.
bool takes_groups(const Weight& weight, size_t n);
void produce(const Step& step, const Weight& weight, size_t m, size_t first, const float* x, size_t n);
Operand produced(const Step& step);

// out[m * ldo + r] for the 32 rows r of panel `panel`; of two panels where `count` is 2, which asks for one row.
// `panels`: where they lie, if the weight has none itself. To be called in an item of a phase.
void run_panel(const Step& step, const Lane& lane, const Weight& weight, size_t panel, Operand& operand, size_t rows,
               float* out, size_t ldo, size_t count = 1, const uint8_t* panels = nullptr);

// How many panels a thread takes at once: two for one row, where a kernel reads long ones by turns.
size_t panels_at_once(const Step& step, const Lane& lane, const Weight& weight, size_t rows);

// work(panel, count) for all panels of the weight, shared out over the threads.
template <class F>
void share_panels(const Step& step, Lane& lane, const Weight& weight, size_t rows, const F& work) {
  const size_t most = panels_at_once(step, lane, weight, rows);
  lane.share((weight.panels + most - 1) / most, [&](size_t i) {
    work(i * most, std::min(most, weight.panels - i * most));
  });
}

// Where the result of an operation goes. kAside: to y, for the operation after it, which adds both.
enum class To { kStream, kAside, kStreamWithAside };

// x += weight * operand (+ bias), through `post_norm` if there is one, then x *= scale. Ends its last phase. False: leave.
// What goes aside is through that norm, too.
[[nodiscard]] bool add_to_stream(const Step& step, Lane& lane, const Weight& weight, Operand& operand,
                                 const Floats& bias, const Floats& post_norm, float eps, To to = To::kStream,
                                 float scale = 1);

// x = (x + norm(y)) * scale, row by row; y is overwritten, and all that happens to it with kAside. False: leave.
[[nodiscard]] bool add_normed(const Step& step, Lane& lane, const Floats& norm, float eps, float* y, float scale = 1,
                              To to = To::kStream);

// x = (x + norm(y + inner_norm(more))) * scale, row by row; an empty inner norm is none. Both are overwritten. False:
// leave.
[[nodiscard]] bool add_normed_sum(const Step& step, Lane& lane, const Floats& norm, float eps, float* y,
                                  const Floats& inner_norm, float* more, float scale);
