// One Python function a kernel. Shapes and sizes are checked here, at the door; then the GIL is let go.
// Matrices may have rows further apart than their length; everything else is contiguous. Outputs are never converted:
// a wrong dtype is an error, not a silent copy. Long because each kernel has its door here.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/strided.h"
#include "core/attend.h"
#include "core/weight.h"
#include "kernels/dispatch.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Blocks = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

__attribute__((format(printf, 2, 3))) void require(bool ok, const char* format, ...) {
  if (ok) return;
  char message[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  throw std::invalid_argument(message);
}

void require_aligned(const void* data, const char* name) {
  require(reinterpret_cast<uintptr_t>(data) % 64 == 0, "%s must start at a multiple of 64 bytes", name);
}

template <typename A, typename B>
void require_same_size(const A& a, const char* a_name, const B& b, const char* b_name) {
  require(a.shape(0) == b.shape(0), "%s has %zu values, %s has %zu", a_name, a.shape(0), b_name, b.shape(0));
}

void quantize(Vector<int8_t> q, Vector<float> scale, Vector<int32_t> sum, Vector<const float> x,
              const std::string& isa) {
  require_same_size(q, "q", x, "x");
  require_same_size(sum, "sum", scale, "scale");
  const size_t k = x.shape(0);
  const size_t groups = scale.shape(0);
  require(groups > 0 && k > 0 && k % groups == 0, "quantize: %zu values do not make %zu groups", k, groups);
  const KernelTable& kernels = kernels_for(isa);
  nb::gil_scoped_release unlocked;
  kernels.quantize(q.data(), scale.data(), sum.data(), x.data(), k, k / groups);
}

void quantize_16(Matrix<int8_t> planes, Vector<float> scale, Vector<int32_t> sum, Vector<const float> x,
                 const std::string& isa) {
  require_same_size(sum, "sum", scale, "scale");
  const size_t k = x.shape(0);
  const size_t groups = scale.shape(0);
  require(planes.shape(0) == 2 && planes.shape(1) == k, "quantize_16: planes must be [2, %zu]", k);
  require(groups > 0 && k > 0 && k % groups == 0, "quantize_16: %zu values do not make %zu groups", k, groups);
  int8_t* low = planes.data() + row_stride(planes, "planes");
  const KernelTable& kernels = kernels_for(isa);
  nb::gil_scoped_release unlocked;
  kernels.quantize_16(planes.data(), low, scale.data(), sum.data(), x.data(), k, k / groups);
}

// How far behind the first panel the second one lies, for one row and a kernel set that takes two; 0: there is one.
size_t second_panel(const Matrix<float>& out, size_t given, size_t bytes, size_t rows, const KernelTable& kernels) {
  const size_t panels = rows == 1 && kernels.takes_second && given == 2 * bytes ? 2 : 1;
  require(given == panels * bytes, "linear: panel has %zu bytes, %zu expected", given, bytes);
  require(out.shape(0) == rows && out.shape(1) == panels * kPanelRows, "linear: out must be [%zu, %zu]", rows,
          panels * kPanelRows);
  return panels == 2 ? bytes : 0;
}

template <auto KernelTable::*kernel, size_t bits, size_t planes = 1, bool mxfp4 = false>
void linear_int(Matrix<float> out, Vector<const uint8_t> panel, Matrix<const int8_t> q, Matrix<const float> scale,
                Matrix<const int32_t> sum, const std::string& isa) {
  const size_t rows = q.shape(0) / planes;
  const size_t k = q.shape(1);
  const size_t groups = scale.shape(1);
  require(q.shape(0) % planes == 0, "linear: %zu rows of q are not whole rows of %zu planes", q.shape(0), planes);
  require(scale.shape(0) == rows && sum.shape(0) == rows && sum.shape(1) == groups,
          "linear: q, scale and sum must have the same rows, scale and sum the same groups");
  require(groups > 0 && k > 0 && k % groups == 0, "linear: %zu columns do not make %zu groups", k, groups);
  const size_t group = k / groups;
  require(group == 32 || group == 64 || group == 128, "linear: group is %zu, must be 32, 64 or 128", group);
  const WeightKind kind = mxfp4 ? kMxfp4 : kind_of(bits);
  const WeightShape shape{kind, k, group, {kPanelRows}, false, 0, 8 * planes};
  check_shape(shape);
  const KernelTable& kernels = kernels_for(isa);
  const size_t second = second_panel(out, panel.shape(0), shape.bytes(), rows, kernels);
  require_aligned(panel.data(), "panel");
  const size_t lds = row_stride(scale, "scale"), ldo = row_stride(out, "out");
  require(lds == row_stride(sum, "sum"), "linear: rows of scale and sum must be equally far apart");
  const ActRows a{q.data(), scale.data(), sum.data(), row_stride(q, "q"), lds, 0, second};
  nb::gil_scoped_release unlocked;
  (kernels.*kernel)(out.data(), ldo, panel.data(), k, group, &a, rows);
}

template <auto KernelTable::*kernel, size_t bits>
void linear_affine(Matrix<float> out, Vector<const uint8_t> panel, Matrix<const int8_t> q, Matrix<const float> scale,
                   Matrix<const int32_t> sum, size_t wide, const std::string& isa) {
  const size_t rows = q.shape(0), k = q.shape(1), groups = scale.shape(1);
  require(scale.shape(0) == rows && sum.shape(0) == rows && sum.shape(1) == groups,
          "linear: q, scale and sum must have the same rows, scale and sum the same groups");
  require(groups > 0 && k > 0 && k % groups == 0, "linear: %zu columns do not make %zu groups", k, groups);
  WeightShape shape{kind_of(bits, true), k, k / groups, {kPanelRows}, false, wide, 8};
  check_shape(shape);
  const KernelTable& kernels = kernels_for(isa);
  const size_t second = second_panel(out, panel.shape(0), shape.bytes(), rows, kernels);
  require_aligned(panel.data(), "panel");
  const size_t lds = row_stride(scale, "scale"), ldo = row_stride(out, "out");
  require(lds == row_stride(sum, "sum"), "linear: rows of scale and sum must be equally far apart");
  const ActRows a{q.data(), scale.data(), sum.data(), row_stride(q, "q"), lds, 0, second};
  nb::gil_scoped_release unlocked;
  (kernels.*kernel)(out.data(), ldo, panel.data(), k, shape.group, wide, &a, rows);
}

void linear_bf16(Matrix<float> out, Vector<const uint8_t> panel, Matrix<const float> x, const std::string& isa) {
  const size_t rows = x.shape(0);
  const size_t k = x.shape(1);
  require(out.shape(0) == rows && out.shape(1) == kPanelRows, "linear: out must be [%zu, 32]", rows);
  const size_t bytes = k * 2 * kPanelRows;
  require(panel.shape(0) == bytes, "linear: panel has %zu bytes, %zu expected", panel.shape(0), bytes);
  require_aligned(panel.data(), "panel");
  const size_t ldo = row_stride(out, "out");
  const size_t ldx = row_stride(x, "x");
  const KernelTable& kernels = kernels_for(isa);
  nb::gil_scoped_release unlocked;
  kernels.linear_bf16(out.data(), ldo, panel.data(), k, x.data(), ldx, rows);
}

void rms_norm(Vector<float> out, Vector<const float> x, Vector<const float> w, float eps, const std::string& isa) {
  require_same_size(out, "out", x, "x");
  require_same_size(w, "w", x, "x");
  const KernelTable& kernels = kernels_for(isa);
  nb::gil_scoped_release unlocked;
  kernels.rms_norm(out.data(), x.data(), w.data(), x.shape(0), eps);
}

void rope(Vector<float> x, Vector<const float> cos, Vector<const float> sin, const std::string& isa) {
  const size_t half = x.shape(0) / 2;
  require(x.shape(0) == 2 * half, "rope: x has %zu values, must be even", x.shape(0));
  require(cos.shape(0) == half && sin.shape(0) == half, "rope: cos and sin must have %zu values", half);
  const KernelTable& kernels = kernels_for(isa);
  nb::gil_scoped_release unlocked;
  kernels.rope(x.data(), cos.data(), sin.data(), x.shape(0));
}

void gated(Vector<float> out, Vector<const float> gate, Vector<const float> up, const std::string& activation,
           const std::string& isa) {
  require_same_size(gate, "gate", out, "out");
  require_same_size(up, "up", out, "out");
  const bool exact = activation == "gelu";
  require(exact || activation == "silu" || activation == "gelu_tanh",
          "gated: activation must be silu, gelu or gelu_tanh");
  const int kind = activation == "silu" ? kSilu : exact ? kGelu : kGeluTanh;
  const KernelTable& kernels = kernels_for(isa);
  nb::gil_scoped_release unlocked;
  kernels.gated(out.data(), gate.data(), up.data(), out.shape(0), kind);
}

void add(Vector<float> out, Vector<const float> a, Vector<const float> b, const std::string& isa) {
  require_same_size(a, "a", out, "out");
  require_same_size(b, "b", out, "out");
  const KernelTable& kernels = kernels_for(isa);
  nb::gil_scoped_release unlocked;
  kernels.add(out.data(), a.data(), b.data(), out.shape(0));
}

size_t argmax(Vector<const float> x, const std::string& isa) {
  require(x.shape(0) > 0, "argmax: x is empty");
  const KernelTable& kernels = kernels_for(isa);
  nb::gil_scoped_release unlocked;
  return kernels.argmax(x.data(), x.shape(0));
}

void exp_values(Vector<float> out, Vector<const float> x, const std::string& isa) {
  require_same_size(out, "out", x, "x");
  const KernelTable& kernels = kernels_for(isa);
  nb::gil_scoped_release unlocked;
  kernels.exp(out.data(), x.data(), x.shape(0));
}

void require_state(const Matrix<float>& to, const Matrix<const float>& from, size_t keys, size_t values) {
  require(keys >= 16 && keys % 16 == 0 && values >= 16 && values % 16 == 0,
          "delta rule: heads of %zu and %zu values, must be multiples of 16", keys, values);
  require(to.shape(0) == keys && to.shape(1) == values && from.shape(0) == keys && from.shape(1) == values,
          "delta rule: states must be [%zu, %zu]", keys, values);
  require(row_stride(to, "to") == values && row_stride(from, "from") == values, "delta rule: rows with gaps");
}

void delta_rule(Matrix<float> to, Matrix<const float> from, Vector<float> out, Vector<float> delta,
                Vector<const float> q, Vector<const float> k, Vector<const float> v, float decay, float beta,
                const std::string& isa) {
  require_state(to, from, k.shape(0), v.shape(0));
  require_same_size(q, "q", k, "k");
  require_same_size(out, "out", v, "v");
  require_same_size(delta, "delta", v, "v");
  const KernelTable& kernels = kernels_for(isa);
  nb::gil_scoped_release unlocked;
  kernels.delta_rule(to.data(), from.data(), out.data(), delta.data(), q.data(), k.data(), v.data(), decay, beta,
                     k.shape(0), v.shape(0));
}

void delta_scan(Matrix<float> to, Matrix<const float> from, Vector<float> out, Vector<const float> delta,
                Vector<const float> q, Vector<const float> k, float decay, const std::string& isa) {
  require_state(to, from, k.shape(0), delta.shape(0));
  require_same_size(q, "q", k, "k");
  require_same_size(out, "out", delta, "delta");
  const nb::gil_scoped_release unlocked;
  kernels_for(isa).delta_scan(to.data(), from.data(), out.data(), delta.data(), q.data(), k.data(), decay, k.shape(0),
                              delta.shape(0));
}

void delta_replay(Matrix<float> to, Matrix<const float> from, Vector<const float> k, Vector<const float> delta,
                  float decay, const std::string& isa) {
  require_state(to, from, k.shape(0), delta.shape(0));
  const nb::gil_scoped_release unlocked;
  kernels_for(isa).delta_replay(to.data(), from.data(), k.data(), delta.data(), decay, k.shape(0), delta.shape(0));
}

size_t kv_block_bytes(size_t head_dim, size_t bits) {
  const size_t step = bits == 4 ? 32 : 16;
  require(head_dim >= step && head_dim <= 512 && head_dim % step == 0,
          "head_dim is %zu, must be a multiple of %zu from %zu to 512", head_dim, step, step);
  if (bits == 4) return 36 * head_dim;
  return 2 * kKvBlock * head_dim * bits / 8 + (bits == 8 ? 8 * kKvBlock : 0);
}

void rotate(Vector<float> x, const std::string& isa) {
  const size_t head_dim = x.shape(0);
  require(head_dim >= 16 && head_dim <= 512 && head_dim % 16 == 0,
          "rotate: x has %zu values, must be a multiple of 16 from 16 to 512", head_dim);
  const KernelTable& kernels = kernels_for(isa);
  nb::gil_scoped_release unlocked;
  kernels.rotate(x.data(), head_dim);
}

template <auto KernelTable::*kernel, size_t bits>
void kv_put(Vector<uint8_t> block, size_t token, Vector<const float> k, Vector<const float> v,
            const std::string& isa) {
  require_same_size(v, "v", k, "k");
  const size_t bytes = kv_block_bytes(k.shape(0), bits);
  require(block.shape(0) == bytes, "kv_put: block has %zu bytes, %zu expected", block.shape(0), bytes);
  require_aligned(block.data(), "block");
  require(token < kKvBlock, "kv_put: token is %zu, a block holds 32", token);
  const KernelTable& kernels = kernels_for(isa);
  nb::gil_scoped_release unlocked;
  (kernels.*kernel)(block.data(), token, k.data(), v.data(), k.shape(0));
}

// Rows of queries, made ready, and what the kernels write for them.
struct Queries {
  std::vector<int8_t> q8;
  std::vector<float> q_scale, m, l, acc;
  std::vector<int32_t> q_sum;

  Queries(const KernelTable& kernels, const Matrix<const float>& q, size_t ldq, float scale, bool quantized)
      : q_scale(q.shape(0)), m(q.shape(0)), l(q.shape(0)), acc(q.size()), q_sum(q.shape(0)) {
    if (!quantized) return;
    const size_t head_dim = q.shape(1);
    q8.resize(q.size());
    for (size_t i = 0; i < q.shape(0); ++i) {
      kernels.quantize(&q8[i * head_dim], &q_scale[i], &q_sum[i], q.data() + i * ldq, head_dim, head_dim);
      q_scale[i] *= scale;
    }
  }
};

// All splits in turn; with `apart` each is computed alone and merged by attend_merge, as the threads of a step do.
template <auto KernelTable::*kernel>
void attend_splits(const KernelTable& kernels, AttendJob job, const std::vector<const uint8_t*>& blocks, bool apart) {
  const AttendJob all = job;
  std::vector<float> m(job.rows * job.heads), l(job.rows * job.heads), acc(m.size() * job.head_dim);
  const size_t end = (all.position + all.rows - 1) / kKvChunk + 1;
  for (job.kv_split = first_seen(job.position, job.window) / kKvChunk; job.kv_split < end; ++job.kv_split) {
    const RowsOfSplit seen(job.kv_split, all.position, all.window, all.rows);
    job.blocks = blocks.data() + job.kv_split * (kKvChunk / kKvBlock);
    job.rows = seen.to - seen.from;
    job.position = all.position + seen.from;
    if (job.q != nullptr) job.q = all.q + seen.from * job.ldq;
    if (job.q8 != nullptr) job.q8 = all.q8 + seen.from * job.ldq;
    const size_t one = seen.from * job.lds;
    job.q_scale = all.q_scale + one;
    job.q_sum = all.q_sum + one;
    job.m = apart ? m.data() : all.m + one;
    job.l = apart ? l.data() : all.l + one;
    job.acc = apart ? acc.data() : all.acc + seen.from * job.lda;
    job.fold = !apart;
    (kernels.*kernel)(&job);
    for (size_t row = seen.from; apart && row < seen.to; ++row) {
      const size_t first = row * job.lds, part = first - one;
      if (first_seen(all.position + row, job.window) < job.kv_split * kKvChunk) {
        kernels.attend_merge(all.m + first, all.l + first, all.acc + row * job.lda, &m[part], &l[part],
                             &acc[part * job.head_dim], job.heads, job.head_dim);
      } else {
        std::copy_n(&m[part], job.heads, all.m + first);
        std::copy_n(&l[part], job.heads, all.l + first);
        std::copy_n(&acc[part * job.head_dim], job.heads * job.head_dim, all.acc + row * job.lda);
      }
    }
  }
}

template <auto KernelTable::*kernel, size_t bits>
void attend(Matrix<float> out, Blocks blocks, Vector<const int32_t> table, Matrix<const float> q, size_t position,
            size_t window, float scale, size_t rows, bool apart, const std::string& isa, float softcap) {
  const size_t bytes = kv_block_bytes(q.shape(1), bits);
  require(rows > 0 && q.shape(0) % rows == 0, "attend: %zu queries do not make %zu rows", q.shape(0), rows);
  const size_t heads = q.shape(0) / rows;
  require(heads >= 1 && heads <= 64, "attend: %zu query heads, must be 1 to 64", heads);
  require(out.shape(0) == q.shape(0) && out.shape(1) == q.shape(1), "attend: out is not shaped like q");
  require(blocks.shape(1) == bytes, "attend: blocks have %zu bytes, %zu expected", blocks.shape(1), bytes);
  require_aligned(blocks.data(), "blocks");
  const size_t ldq = row_stride(q, "q"), ldo = row_stride(out, "out");
  require(bits != 16 || ldq == q.shape(1), "attend: the queries must be contiguous");
  require(position < table.shape(0) * kKvBlock && position + rows <= table.shape(0) * kKvBlock,
          "attend: %zu rows from position %zu are not in %zu blocks", rows, position, table.shape(0));
  std::vector<const uint8_t*> pointers((table.shape(0) / 8 + 1) * 8);
  for (size_t i = 0; i < table.shape(0); ++i) {
    const int32_t at = table(i);
    require(at >= 0 && static_cast<size_t>(at) < blocks.shape(0), "attend: there is no block %d", at);
    pointers[i] = blocks.data() + static_cast<size_t>(at) * bytes;
  }
  const KernelTable& kernels = kernels_for(isa);
  nb::gil_scoped_release unlocked;
  Queries queries(kernels, q, ldq, scale, bits != 16);
  std::vector<float> room(kAttendRoom + 16);
  AttendJob job{};
  job.room = room.data() + (-reinterpret_cast<uintptr_t>(room.data()) & 63) / sizeof(float);
  job.position = position;
  job.window = window;
  job.softcap = softcap;
  job.rows = rows;
  job.ldm = job.lds = job.heads = heads;
  job.head_dim = q.shape(1);
  job.ldq = job.lda = heads * job.head_dim;
  if (bits == 16)
    job.q = q.data();
  else
    job.q8 = queries.q8.data();
  job.q_scale = queries.q_scale.data();
  job.q_sum = queries.q_sum.data();
  job.scale = scale;
  job.m = queries.m.data();
  job.l = queries.l.data();
  job.acc = queries.acc.data();
  attend_splits<kernel>(kernels, job, pointers, apart);
  kernels.attend_finish(job.acc, job.l, heads * rows, job.head_dim);
  for (size_t i = 0; i < heads * rows; ++i)
    std::copy_n(job.acc + i * job.head_dim, job.head_dim, out.data() + i * ldo);
}

void bind_linear(nb::module_& m) {
  m.def("quantize", quantize, "q"_a.noconvert(), "scale"_a.noconvert(), "sum"_a.noconvert(), "x"_a, nb::kw_only(),
        "isa"_a = "", "Quantize x [k] to int8 q [k], with one scale and one sum a group of k / len(scale) values.");
  const auto linear = [&m](const char* name, auto function) {
    m.def(name, function, "out"_a.noconvert(), "panel"_a.noconvert(), "q"_a, "scale"_a, "sum"_a, nb::kw_only(),
          "isa"_a = "", "out [rows, 32] = one panel times quantized rows: q [rows, k], scale and sum [rows, k / group].");
  };
  linear("linear_i4", linear_int<&KernelTable::linear_i4, 4>);
  linear("linear_i3", linear_int<&KernelTable::linear_i3, 3>);
  linear("linear_i5", linear_int<&KernelTable::linear_i5, 5>);
  linear("linear_i8", linear_int<&KernelTable::linear_i8, 8>);
  linear("linear_mx4", linear_int<&KernelTable::linear_mx4, 4, 1, true>);
  const auto affine = [&m](const char* name, auto function) {
    m.def(name, function, "out"_a.noconvert(), "panel"_a, "q"_a, "scale"_a, "sum"_a, "wide"_a, nb::kw_only(),
          "isa"_a = "", "The same of one panel of affine weights, `wide` columns of which share scale and minimum.");
  };
  affine("linear_a4", linear_affine<&KernelTable::linear_a4, 4>);
  affine("linear_a5", linear_affine<&KernelTable::linear_a5, 5>);
  m.def("quantize_16", quantize_16, "planes"_a.noconvert(), "scale"_a.noconvert(), "sum"_a.noconvert(), "x"_a,
        nb::kw_only(), "isa"_a = "",
        "Quantize x [k] to 16 bits, 255 * planes[0] + planes[1] (int8 [2, k]), with one scale and one sum a group.");
  m.def("linear_i8_16", linear_int<&KernelTable::linear_i8_16, 8, 2>, "out"_a.noconvert(), "panel"_a.noconvert(), "q"_a,
        "scale"_a, "sum"_a, nb::kw_only(), "isa"_a = "",
        "out [rows, 32] = one panel times rows of two planes: q [2 * rows, k], scale and sum [rows, k / group].");
  m.def("linear_bf16", linear_bf16, "out"_a.noconvert(), "panel"_a.noconvert(), "x"_a, nb::kw_only(), "isa"_a = "",
        "out [rows, 32] = one bf16 panel times float rows x [rows, k].");
}

void bind_vector(nb::module_& m) {
  m.def("rms_norm", rms_norm, "out"_a.noconvert(), "x"_a, "w"_a, "eps"_a, nb::kw_only(), "isa"_a = "",
        "out [n] = x / sqrt(mean(x * x) + eps) * w.");
  m.def("rope", rope, "x"_a.noconvert(), "cos"_a, "sin"_a, nb::kw_only(), "isa"_a = "",
        "Rotate one head x [d] in place by the angles whose cos and sin [d / 2] are given; halves are paired.");
  m.def("gated", gated, "out"_a.noconvert(), "gate"_a, "up"_a, "activation"_a, nb::kw_only(), "isa"_a = "",
        "out [n] = activation(gate) * up; activation is 'silu', 'gelu' or 'gelu_tanh'.");
  m.def("delta_rule", delta_rule, "to"_a.noconvert(), "from_"_a, "out"_a.noconvert(), "delta"_a.noconvert(), "q"_a, "k"_a,
        "v"_a, "decay"_a, "beta"_a, nb::kw_only(), "isa"_a = "",
        "One row through a head's state [keys, values]: delta = beta * (v - decay * k from), to = decay * from + k delta,\n"
        "out = q to. `to` may be `from_`.");
  m.def("delta_scan", delta_scan, "to"_a.noconvert(), "from_"_a, "out"_a.noconvert(), "delta"_a, "q"_a, "k"_a, "decay"_a,
        nb::kw_only(), "isa"_a = "", "to = decay * from + k delta, out = q to, as `delta_rule` makes them.");
  m.def("delta_replay", delta_replay, "to"_a.noconvert(), "from_"_a, "k"_a, "delta"_a, "decay"_a, nb::kw_only(),
        "isa"_a = "", "to = decay * from + k delta, as `delta_rule` makes it.");
  m.def("add", add, "out"_a.noconvert(), "a"_a, "b"_a, nb::kw_only(), "isa"_a = "", "out [n] = a + b.");
  m.def("argmax", argmax, "x"_a, nb::kw_only(), "isa"_a = "", "Lowest index of the largest value; NaN is smallest.");
  m.def("exp", exp_values, "out"_a.noconvert(), "x"_a, nb::kw_only(), "isa"_a = "", "out [n] = exp(x).");
}

void bind_attention(nb::module_& m) {
  const auto put = [&m](const char* name, auto function) {
    m.def(name, function, "block"_a.noconvert(), "token"_a, "k"_a, "v"_a, nb::kw_only(), "isa"_a = "",
          "Write key and value [head_dim] into slot `token` (0 to 31) of a KV block.");
  };
  put("kv_put_8", kv_put<&KernelTable::kv_put_8, 8>);
  put("kv_put_16", kv_put<&KernelTable::kv_put_16, 16>);
  put("kv_put_4", kv_put<&KernelTable::kv_put_4, 4>);
  m.def("rotate", rotate, "x"_a.noconvert(), nb::kw_only(), "isa"_a = "",
        "Walsh-Hadamard transform in place of each run of n values of x, n being the largest power of two that divides\n"
        "their number; not scaled. Keys and queries of a cache of 8 or 4 bits are rotated before they are put and attend.");
  const auto attention = [&m](const char* name, auto function) {
    m.def(name, function, "out"_a.noconvert(), "blocks"_a.noconvert(), "table"_a, "q"_a, "position"_a, "window"_a,
          "scale"_a, nb::kw_only(), "rows"_a = 1, "apart"_a = false, "isa"_a = "", "softcap"_a = 0.0f,
          "Softmax attention of `rows` rows of heads q [rows * heads, head_dim], row m at position + m; blocks[table[i]]\n"
          "holds tokens 32 i to 32 i + 31. `window`: tokens that a row sees, itself included, 0 for all. `apart`: each\n"
          "split of 256 tokens is computed alone and merged after. `softcap` c > 0: scores become c tanh(score / c).");
  };
  attention("attend_8", attend<&KernelTable::attend_8, 8>);
  attention("attend_16", attend<&KernelTable::attend_16, 16>);
  attention("attend_4", attend<&KernelTable::attend_4, 4>);
}

}  // namespace

void bind_kernels(nb::module_& m) {
  bind_linear(m);
  bind_vector(m);
  bind_attention(m);
}
