// The program: every argument is checked here or in the core before the GIL is let go. Long because every operation's
// arguments and their documentation stand side by side.
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>

#include "bindings/arguments.h"
#include "bindings/bindings.h"
#include "core/error.h"
#include "core/program.h"

using namespace nb::literals;

namespace {

using Integers = Vector<const int32_t>;
using Table = Matrix<const int32_t>;
using Tables = Cube<const int32_t>;

size_t rope_table(Program& program, Vector<const double> inv_freq, size_t positions, double attention_factor,
                  double growth, double every) {
  return program.rope_table(inv_freq.data(), inv_freq.shape(0), positions, attention_factor, growth, every);
}

void embed(Program& program, std::shared_ptr<Weight> weight, float scale, std::optional<float> norm_eps) {
  REQUIRE(!norm_eps || (*norm_eps >= 0 && *norm_eps <= 1), "the epsilon of a norm is %g",
          static_cast<double>(*norm_eps));
  program.embed({std::move(weight), scale, norm_eps.value_or(-1.0f)});
}

float post_eps_of(std::optional<float> post_eps, float eps) {
  const float found = post_eps.value_or(eps);
  REQUIRE(found >= 0 && found <= 1, "the epsilon of a norm is %g", static_cast<double>(found));
  return found;
}

void embed_rows(const Program& program, Integers tokens, Matrix<float> out) {
  REQUIRE(out.shape(0) == tokens.shape(0) && out.shape(1) == program.hidden(), "out is %zu x %zu, but must be %zu x %zu",
          out.shape(0), out.shape(1), tokens.shape(0), program.hidden());
  program.embed_rows(tokens.data(), tokens.shape(0), out.data());
}

void mix(Program& program, std::shared_ptr<Weight> weight) { program.mix({std::move(weight)}); }

void attend(Program& program, const MaybeValues& norm, float eps, std::shared_ptr<Weight> qkv, const MaybeValues& bias,
            const MaybeValues& q_norm, const MaybeValues& k_norm, std::shared_ptr<Weight> o, const MaybeValues& o_bias,
            const MaybeValues& post_norm, size_t heads, size_t kv_heads, size_t head_dim, size_t rope, float scale,
            size_t window, const MaybeValues& norm_bias, std::optional<size_t> query_rope, bool norm_after_rope,
            float softcap, const MaybeValues& sinks, bool gated, const MaybeValues& v_norm,
            std::optional<size_t> kv_of, float out_scale, std::optional<float> post_eps) {
  AttendOp op;
  op.post_eps = post_eps_of(post_eps, eps);
  op.gated = gated;
  op.v_norm = to_vector(v_norm);
  op.out_scale = out_scale;
  op.borrows = kv_of.has_value();
  op.layer = kv_of.value_or(0);
  op.norm = make_norm(norm, eps, norm_bias);
  op.norm_after_rope = norm_after_rope;
  op.query_rope = query_rope.value_or(rope);
  op.softcap = softcap;
  op.sinks = to_vector(sinks);
  op.qkv = std::move(qkv);
  op.bias = to_vector(bias);
  op.q_norm = to_vector(q_norm);
  op.k_norm = to_vector(k_norm);
  op.o = std::move(o);
  op.o_bias = to_vector(o_bias);
  op.post_norm = to_vector(post_norm);
  op.heads = heads;
  op.kv_heads = kv_heads;
  op.head_dim = head_dim;
  op.rope = rope;
  op.scale = scale;
  op.window = window;
  program.attend(std::move(op));
}

void gated_mlp(Program& program, const MaybeValues& norm, float eps, std::shared_ptr<Weight> gate_up,
               const std::string& activation, std::shared_ptr<Weight> down, const MaybeValues& post_norm,
               const MaybeValues& norm_bias, const MaybeValues& gate_bias, const MaybeValues& up_bias,
               const MaybeValues& down_bias, bool beside, float inner_scale, float scale,
               std::optional<float> post_eps) {
  MlpOp op;
  op.post_eps = post_eps_of(post_eps, eps);
  op.inner_scale = inner_scale;
  op.scale = scale;
  op.norm = make_norm(norm, eps, norm_bias);
  op.gate_bias = to_vector(gate_bias);
  op.up_bias = to_vector(up_bias);
  op.down_bias = to_vector(down_bias);
  op.beside = beside;
  op.gate_up = std::move(gate_up);
  op.squares = activation == "relu2";
  op.activation = op.squares ? kSilu : make_activation(activation);
  op.down = std::move(down);
  op.post_norm = to_vector(post_norm);
  program.gated_mlp(std::move(op));
}

void layer_inputs(Program& program, std::shared_ptr<Weight> table, float scale, std::shared_ptr<Weight> project,
                  const Values& norm, float eps, std::shared_ptr<RowFile> rows) {
  REQUIRE(eps >= 0 && std::isfinite(eps), "the epsilon of a norm is %g", static_cast<double>(eps));
  program.layer_inputs({std::move(table), std::move(rows), scale, std::move(project), to_vector(norm), eps});
}

void layer_input(Program& program, std::shared_ptr<Weight> gate, const std::string& activation,
                 std::shared_ptr<Weight> project, const MaybeValues& post_norm, float eps, float scale) {
  REQUIRE(eps >= 0 && eps <= 1, "the epsilon of a norm is %g", static_cast<double>(eps));
  LayerInputOp op;
  op.gate = std::move(gate);
  op.activation = make_activation(activation);
  op.project = std::move(project);
  op.post_norm = to_vector(post_norm);
  op.eps = eps;
  op.scale = scale;
  program.layer_input(std::move(op));
}

void short_conv(Program& program, const Values& norm, float eps, std::shared_ptr<Weight> in, const MaybeValues& in_bias,
                const Values& taps, const MaybeValues& taps_bias, std::shared_ptr<Weight> out,
                const MaybeValues& out_bias) {
  REQUIRE(taps.shape(0) % program.hidden() == 0, "%zu taps of %zu columns", taps.shape(0), program.hidden());
  ShortConvOp op;
  op.norm = make_norm(norm, eps);
  op.in = std::move(in);
  op.in_bias = to_vector(in_bias);
  op.taps = to_vector(taps);
  op.taps_bias = to_vector(taps_bias);
  op.length = taps.shape(0) / program.hidden();
  op.out = std::move(out);
  op.out_bias = to_vector(out_bias);
  program.short_conv(std::move(op));
}

// What delta nets and Mamba-2 share.
DeltaOp make_recurrence(const Values& norm, float eps, std::shared_ptr<Weight> in, std::shared_ptr<Weight> gates,
                        const Values& taps, const MaybeValues& taps_bias, Vector<const double> decay_rate,
                        const Values& dt_bias, const MaybeValues& out_norm, float out_norm_eps,
                        std::shared_ptr<Weight> out, size_t heads, size_t value_heads, size_t key_dim,
                        size_t value_dim) {
  for (const size_t size : {heads, value_heads, key_dim, value_dim})
    REQUIRE(size > 0 && size <= 4096, "heads or their sizes of %zu", size);
  DeltaOp op;
  op.norm = make_norm(norm, eps);
  op.in = std::move(in);
  op.gates = std::move(gates);
  op.heads = heads;
  op.value_heads = value_heads;
  op.key_dim = key_dim;
  op.value_dim = value_dim;
  REQUIRE(taps.shape(0) % op.channels() == 0, "%zu taps of %zu channels", taps.shape(0), op.channels());
  op.length = taps.shape(0) / op.channels();
  op.taps = to_vector(taps);
  op.taps_bias = to_vector(taps_bias);
  op.decay_rate.assign(decay_rate.data(), decay_rate.data() + decay_rate.shape(0));
  op.dt_bias = to_vector(dt_bias);
  op.out_norm = to_vector(out_norm);
  REQUIRE(out_norm_eps >= 0 && out_norm_eps <= 1, "the epsilon of a norm is %g", static_cast<double>(out_norm_eps));
  op.out_norm_eps = out_norm_eps;
  op.out = std::move(out);
  return op;
}

void delta_net(Program& program, const Values& norm, float eps, std::shared_ptr<Weight> in, std::shared_ptr<Weight> gates,
               const Values& taps, const MaybeValues& taps_bias, Vector<const double> decay_rate, const Values& dt_bias,
               float beta_scale, const Values& out_norm, float out_norm_eps, std::shared_ptr<Weight> out, size_t heads,
               size_t value_heads, size_t key_dim, size_t value_dim) {
  DeltaOp op = make_recurrence(norm, eps, std::move(in), std::move(gates), taps, taps_bias, decay_rate, dt_bias, out_norm,
                               out_norm_eps, std::move(out), heads, value_heads, key_dim, value_dim);
  op.beta_scale = beta_scale;
  program.delta_net(std::move(op));
}

void mamba2(Program& program, const Values& norm, float eps, std::shared_ptr<Weight> in, std::shared_ptr<Weight> dt,
            const Values& taps, const MaybeValues& taps_bias, Vector<const double> decay_rate, const Values& dt_bias,
            const Values& skip, double dt_low, double dt_high, float dt_scale, float z_scale, const MaybeValues& out_norm,
            float out_norm_eps, size_t norm_groups, bool norm_before_gate, float out_scale, std::shared_ptr<Weight> out,
            size_t groups, size_t heads, size_t state, size_t head_dim, bool beside) {
  DeltaOp op = make_recurrence(norm, eps, std::move(in), std::move(dt), taps, taps_bias, decay_rate, dt_bias, out_norm,
                               out_norm_eps, std::move(out), groups, heads, state, head_dim);
  op.scan = {to_vector(skip), dt_low, dt_high, dt_scale, z_scale, out_scale, norm_groups, norm_before_gate};
  REQUIRE(op.scans(), "a skip of %zu heads", size_t{0});
  op.beside = beside;
  program.delta_net(std::move(op));
}

void head(Program& program, const Values& norm, float eps, std::shared_ptr<Weight> weight, float softcap,
          const MaybeValues& norm_bias) {
  program.head({make_norm(norm, eps, norm_bias), std::move(weight), softcap});
}

// Python's signal handlers run here; on the main thread only, elsewhere there is nothing to ask.
bool signal_arrived() {
  const nb::gil_scoped_acquire locked;
  return PyErr_CheckSignals() != 0;
}

void step(Program& program, Integers tokens, Integers positions, Integers sequences,
          const std::variant<Table, Tables>& block_tables, Integers out_rows, Matrix<float> logits, size_t begin, size_t end,
          const std::optional<Matrix<const float>>& inputs, const std::optional<Matrix<float>>& hidden,
          const std::optional<Integers>& drafted) {
  const size_t rows = tokens.shape(0);
  REQUIRE(positions.shape(0) == rows && sequences.shape(0) == rows, "%zu tokens, %zu positions and %zu sequences", rows,
          positions.shape(0), sequences.shape(0));
  REQUIRE(logits.shape(0) == out_rows.shape(0) && logits.shape(1) == program.vocab(),
          "logits is %zu x %zu, but must be %zu x %zu", logits.shape(0), logits.shape(1), out_rows.shape(0),
          program.vocab());
  REQUIRE(!inputs || program.input_columns(begin) != 0, "inputs, but this step begins with tokens");
  REQUIRE(!inputs || (inputs->shape(0) == rows && inputs->shape(1) == program.input_columns(begin)),
          "inputs is %zu x %zu, but must be %zu x %zu", inputs->shape(0), inputs->shape(1), rows,
          program.input_columns(begin));
  REQUIRE(!hidden || (hidden->shape(0) == rows && hidden->shape(1) == program.hidden()),
          "hidden is %zu x %zu, but must be %zu x %zu", hidden->shape(0), hidden->shape(1), rows, program.hidden());
  const Table* const shared = std::get_if<Table>(&block_tables);
  const Tables* const each = std::get_if<Tables>(&block_tables);
  REQUIRE(each == nullptr || each->shape(0) == program.kv_groups(), "block tables of %zu KV groups, but there are %zu",
          each != nullptr ? each->shape(0) : 0, program.kv_groups());
  const size_t n_sequences = shared != nullptr ? shared->shape(0) : each->shape(1);
  const size_t width = shared != nullptr ? shared->shape(1) : each->shape(2);
  REQUIRE(!drafted || drafted->shape(0) == n_sequences, "%zu counts of drafted rows for %zu sequences",
          drafted ? drafted->shape(0) : 0, n_sequences);
  const StepInput input{rows,
                        tokens.data(),
                        positions.data(),
                        sequences.data(),
                        n_sequences,
                        width,
                        shared != nullptr ? shared->data() : each->data(),
                        out_rows.shape(0),
                        out_rows.data(),
                        logits.data(),
                        begin,
                        end,
                        inputs ? inputs->data() : nullptr,
                        hidden ? hidden->data() : nullptr,
                        drafted ? drafted->data() : nullptr,
                        shared != nullptr ? 0 : n_sequences * width};
  bool finished = false;
  {
    const nb::gil_scoped_release unlocked;
    finished = program.step(input, signal_arrived);
  }
  if (!finished) nb::raise_python_error();  // what the signal handler raised
}

using OneOrEach = std::variant<size_t, std::vector<size_t>>;

std::vector<size_t> for_each(const OneOrEach& given, size_t count) {
  const auto* const one = std::get_if<size_t>(&given);
  return one != nullptr ? std::vector<size_t>(count, *one) : std::get<std::vector<size_t>>(given);
}

void make_kv(Program& program, const OneOrEach& blocks, const OneOrEach& bits) {
  const nb::gil_scoped_release unlocked;
  program.make_kv(for_each(blocks, program.kv_groups()), for_each(bits, program.kv_layers()));
}

void read_kv(Program& program, size_t block, Vector<uint8_t> out, std::optional<size_t> group) {
  const size_t bytes = out.shape(0);
  uint8_t* const data = out.data();
  const nb::gil_scoped_release unlocked;
  program.read_kv(block, data, bytes, group.value_or(KvCache::kAllGroups));
}

void write_kv(Program& program, size_t block, Vector<const uint8_t> values, std::optional<size_t> group) {
  const size_t bytes = values.shape(0);
  const uint8_t* const data = values.data();
  const nb::gil_scoped_release unlocked;
  program.write_kv(block, data, bytes, group.value_or(KvCache::kAllGroups));
}

std::vector<size_t> kv_group_bytes(const Program& program) {
  std::vector<size_t> bytes;
  for (size_t group = 0; group < program.kv_groups(); ++group) bytes.push_back(program.kv_block_bytes(group));
  return bytes;
}

void read_state(Program& program, size_t location, Vector<uint8_t> out) {
  program.read_state(location, out.data(), out.shape(0));
}

void write_state(Program& program, size_t location, Vector<const uint8_t> values) {
  program.write_state(location, values.data(), values.shape(0));
}

void watch(Program& program, std::shared_ptr<Weight> weight) { program.watch(weight); }

Vector<double> squares(Program& program, const Weight& weight) {
  const std::vector<double>* sums = program.squares(weight);
  REQUIRE(sums != nullptr, "the weight is not watched");
  auto* values = new double[sums->size()];
  nb::capsule owner(values, [](void* p) noexcept { delete[] static_cast<double*>(p); });
  std::copy(sums->begin(), sums->end(), values);
  return Vector<double>(values, {sums->size()}, owner);
}

nb::list phase_times(const Program& program) {
  nb::list found;
  for (const PhaseTime& one : program.phase_times())
    found.append(nb::make_tuple(one.operation, one.phase, one.busy, one.wait));
  return found;
}

std::vector<double> probe_kv(Program& program, Integers tokens) {
  std::vector<double> errors;
  {
    const nb::gil_scoped_release unlocked;
    errors = program.probe_kv(tokens.data(), tokens.shape(0), signal_arrived);
  }
  if (errors.empty()) nb::raise_python_error();
  return errors;
}

constexpr const char* kAttendHelp =
    "x += o(attention(q, k, v of norm(x))), `post_norm` before the sum if there is one.\n\n"
    "norm: RMSNorm, or none; with `norm_bias`, which may be empty, LayerNorm.\n"
    "qkv: three stacked parts of heads * head_dim, kv_heads * head_dim, kv_heads * head_dim rows; `bias` is q | k | v\n"
    "without padding; `q_norm` and `k_norm` norm each head before RoPE (`norm_after_rope`: after it), or, with as\n"
    "many values as all heads have, all at once; all with the same `eps`; `rope` is a table's number, which turns the\n"
    "first values of each head, `query_rope` that of queries if it is another one; `scale` multiplies q . k, and\n"
    "`softcap` c makes c tanh(score / c) of that; `window` is how many tokens a query sees, itself included, 0 for\n"
    "all. `sinks` [heads] are scores that take part in the softmax and have no values. `gated`: the first part of\n"
    "qkv is the queries, then as many gates, whose sigmoid multiplies what o reads. `qkv` of two parts: values\n"
    "are the keys, before these are normed; `v_norm` norms each head of the values. `kv_of`: keys and values are\n"
    "those of that layer, counted over the layers that have such, and `qkv` is q alone. What o reads is multiplied\n"
    "by `out_scale`. `post_norm` has `post_eps` where that is given.";

constexpr const char* kStepHelp =
    "Run `tokens` (n of them) through the program, and write the logits of rows `out_rows` (ascending).\n\n"
    "Row i stands at positions[i] of the sequence whose cache blocks are block_tables[sequences[i]], or, with a\n"
    "table for each KV group, block_tables[group, sequences[i]]. Blocks that no row of the step sees may be\n"
    "anything, -1 say. Rows of one sequence follow each other by one. Keys and values of all rows are written\n"
    "before any row attends. Any n: the result of a row depends neither on the other rows nor on the threads. The\n"
    "GIL is released; a signal is seen within 20 ms or one phase, then its exception is raised and the program\n"
    "stays usable.\n"
    "Only layers `begin` to `end` - 1 run (`end` 0: to the last); the head follows in any case. A program that\n"
    "begins with `mix` needs `inputs` [n, its columns], and with `begin` > 0 any needs the residual stream there,\n"
    "[n, hidden]; tokens then mean nothing, but for `layer_inputs`.\n"
    "`hidden` [n, hidden] is given the stream of all rows after these layers.\n"
    "With recurrent operations `drafted` [sequences] says how many of a sequence's last rows are drafts; the others\n"
    "move its state on, and a later step goes on where they end (`advance_state`), or at position 0.\n"
    "Raises ValueError, with the numbers, for anything out of range, RuntimeError when a step is running already.";

}  // namespace

void bind_program(nb::module_& m) {
  m.def(
      "kv_block_bytes",
      [](size_t kv_heads, size_t head_dim, size_t bits) { return KvCache::block_bytes({kv_heads, head_dim, bits}); },
      "kv_heads"_a, "head_dim"_a, "bits"_a,
      "Bytes that 32 tokens of one layer take in the KV cache, 4, 8 or 16 bits a value, scales included.\n\n"
      "Raises ValueError for other bits, and for 4 where `head_dim` is no multiple of 32.");
  auto program = nb::class_<Program>(m, "Program",
                      "One model and the threads that run it: `embed`, then `attend` and `gated_mlp` in turn, then\n"
                      "`head`, then `make_kv`; after that `step`. Raises ValueError on shapes that disagree.")
      .def(nb::init<size_t, size_t, const std::string&, size_t>(), "hidden"_a, "threads"_a = 0, "isa"_a = "",
           "max_rows"_a = 256,
           "`threads` 0: one a physical core. `isa` \"\": the best kernels here. `max_rows`: rows computed at once.")
      .def("rope_table", &rope_table, "inv_freq"_a.noconvert(), "positions"_a, "attention_factor"_a = 1.0,
           "growth"_a = 0.0, "every"_a = 1.0,
           "Make cosines and sines of position * inv_freq (float64 [half of the values that are turned]), times\n"
           "`attention_factor` * (1 + `growth` * log(1 + floor(position / `every`))); returns the table's number.")
      .def("embed", &embed, "weight"_a, "scale"_a = 1.0f, "norm_eps"_a = nb::none(),
           "x = row(token) * scale, then, with `norm_eps`, through a norm without a weight.")
      .def("embed_rows", &embed_rows, "tokens"_a.noconvert(), "out"_a.noconvert(),
           "The rows of the embedding, scaled as the first layer gets them, into `out` [n, hidden].")
      .def("mix", &mix, "weight"_a, "x = weight * input instead of `embed`, of `inputs` that a step brings.")
      .def("attend", &attend, "norm"_a.noconvert().none(), "eps"_a, "qkv"_a, "bias"_a.noconvert().none(),
           "q_norm"_a.noconvert().none(), "k_norm"_a.noconvert().none(), "o"_a, "o_bias"_a.noconvert().none(),
           "post_norm"_a.noconvert().none(), "heads"_a, "kv_heads"_a, "head_dim"_a, "rope"_a, "scale"_a,
           "window"_a = 0, "norm_bias"_a.noconvert() = nb::none(), "query_rope"_a = nb::none(),
           "norm_after_rope"_a = false, "softcap"_a = 0.0f, "sinks"_a.noconvert() = nb::none(), "gated"_a = false,
           "v_norm"_a.noconvert() = nb::none(), "kv_of"_a = nb::none(), "out_scale"_a = 1.0f, "post_eps"_a = nb::none(),
           kAttendHelp)
      .def("gated_mlp", &gated_mlp, "norm"_a.noconvert().none(), "eps"_a, "gate_up"_a, "activation"_a, "down"_a,
           "post_norm"_a.noconvert() = nb::none(), "norm_bias"_a.noconvert() = nb::none(),
           "gate_bias"_a.noconvert() = nb::none(), "up_bias"_a.noconvert() = nb::none(),
           "down_bias"_a.noconvert() = nb::none(), "beside"_a = false, "inner_scale"_a = 1.0f, "scale"_a = 1.0f,
           "post_eps"_a = nb::none(),
           "x += down(act(gate) * up), gate and up of norm(x), interleaved, or down(act(up)), with up alone in `gate_up`;\n"
           "`activation` is `silu`, `gelu`, `gelu_tanh` or `relu2`, the square of relu; norms as in `attend`. What down\n"
           "reads is multiplied by `inner_scale`. `beside`: it reads the x that the attention before it reads, and then\n"
           "both are added. Last of all x is multiplied by `scale`.")
      .def("layer_inputs", &layer_inputs, "table"_a.none(), "scale"_a, "project"_a, "norm"_a.noconvert(), "eps"_a,
           "rows"_a = nb::none(),
           "After `embed`: what each layer gets of a token, in parts of as many values as `norm` has. Part i is\n"
           "norm(part i of project * x) + row(token) of `table`, or of `rows` in their file, * scale.")
      .def("layer_input", &layer_input, "gate"_a, "activation"_a, "project"_a, "post_norm"_a.noconvert().none(), "eps"_a,
           "scale"_a = 1.0f,
           "x = (x + project(act(gate * x) * part)) * scale, `post_norm` before the sum if there is one; `part` is the\n"
           "next one of `layer_inputs`.")
      .def("short_conv", &short_conv, "norm"_a.noconvert(), "eps"_a, "in_"_a, "in_bias"_a.noconvert().none(),
           "taps"_a.noconvert(), "taps_bias"_a.noconvert().none(), "out"_a, "out_bias"_a.noconvert().none(),
           "x += out(c * conv(b * u)), b, c and u the three thirds of `in_` * norm(x); conv is causal, by column,\n"
           "with `taps` [length * hidden], the oldest row's first.")
      .def("delta_net", &delta_net, "norm"_a.noconvert(), "eps"_a, "in_"_a, "gates"_a, "taps"_a.noconvert(),
           "taps_bias"_a.noconvert().none(), "decay_rate"_a.noconvert(), "dt_bias"_a.noconvert(), "beta_scale"_a,
           "out_norm"_a.noconvert(), "out_norm_eps"_a, "out"_a, "heads"_a, "value_heads"_a, "key_dim"_a, "value_dim"_a,
           "x += out(out_norm(o) * silu(z)), o what value heads read of their states by the gated delta rule; q, k, v and\n"
           "z are the rows of `in_` * norm(x), b and a those of `gates`. q, k and v go through a causal convolution with\n"
           "`taps` [length * channels], the oldest row's first, and SiLU; q and k of a head get length 1, q also\n"
           "1 / sqrt(key_dim); beta is `beta_scale` * sigmoid(b), and a row keeps exp(-`decay_rate` * softplus(a +\n"
           "`dt_bias`)) of a state.")
      .def("mamba2", &mamba2, "norm"_a.noconvert(), "eps"_a, "in_"_a, "dt"_a, "taps"_a.noconvert(),
           "taps_bias"_a.noconvert().none(), "decay_rate"_a.noconvert(), "dt_bias"_a.noconvert(), "skip"_a.noconvert(),
           "dt_low"_a, "dt_high"_a, "dt_scale"_a, "z_scale"_a, "out_norm"_a.noconvert().none(), "out_norm_eps"_a,
           "norm_groups"_a, "norm_before_gate"_a, "out_scale"_a, "out"_a, "groups"_a, "heads"_a, "state"_a, "head_dim"_a,
           "beside"_a = false,
           "x += out(y), y = norm((C S + `skip` * u) * silu(`z_scale` * z)) * `out_scale`; C, B, u and z are the rows of\n"
           "`in_` * norm(x). C, B and u go through a causal convolution as in `delta_net`. A row's step d is\n"
           "softplus(`dt_scale` * `dt` * norm(x) + `dt_bias`) within [`dt_low`, `dt_high`], and a head's state\n"
           "[state, head_dim] S = exp(-`decay_rate` * d) * S + B (d * u)'. `out_norm` is of each of `norm_groups` groups of\n"
           "columns, 0: there is none; or before silu. `beside` as in `gated_mlp`.")
      .def("head", &head, "norm"_a.noconvert(), "eps"_a, "weight"_a, "softcap"_a = 0.0f,
           "norm_bias"_a.noconvert() = nb::none(),
           "logits = weight * norm(x); with `softcap` c, c * tanh(logits / c).")
      .def("make_kv", &make_kv, "blocks"_a, "kv_bits"_a,
           "Allocate the cache: `blocks` blocks of 32 tokens, for all KV groups or one number for each, of 4, 8 or 16\n"
           "bits a value, for all layers or one number for each. Called again, it starts empty. 4 needs heads of a\n"
           "multiple of 32 values.\n\n"
           "Memory is taken when first written. Raises MemoryError with the size.")
      .def("borrow_kv", &Program::borrow_kv, "lender"_a, nb::keep_alive<1, 2>(),
           "After `mix`, instead of `make_kv`: each `attend` reads keys and values of `lender`, a program that is complete\n"
           "and on the CPU, by `kv_of`. Block tables of a step are the lender's. A row at position p is a query of\n"
           "position p + 1, which sees what is there before it. Steps of both may not run at once.")
      .def("read_kv", &read_kv, "block"_a, "out"_a.noconvert(), "group"_a = nb::none(),
           "Copy one block of the cache, all layers of a KV group or of all, into `out` (uint8 [kv_block_bytes], or of\n"
           "[kv_group_bytes[group]]), to keep it elsewhere.\n\n"
           "Raises ValueError for a block that is not there, RuntimeError while a step is running.")
      .def("write_kv", &write_kv, "block"_a, "values"_a.noconvert(), "group"_a = nb::none(),
           "The reverse of `read_kv`, for a cache of the same model and bits. Errors as there.")
      .def("make_state", &Program::make_state, "slots"_a, "snapshots"_a = 0, "drafts"_a = 0,
           nb::call_guard<nb::gil_scoped_release>(),
           "Allocate the states of recurrent operations: sequence i of a step has slot i, which keeps up to `drafts`\n"
           "drafted rows; `snapshots` more places hold states only. Called again, all are empty.")
      .def("advance_state", &Program::advance_state, "slot"_a, "rows"_a,
           "The first `rows` of the rows that the last step drafted in `slot` are right: its state moves on by them.")
      .def("copy_state", &Program::copy_state, "from_"_a, "to"_a, "position"_a = 0,
           "Copy a state from one place to another (slots first, then snapshots); a slot then stands at `position`.")
      .def("read_state", &read_state, "location"_a, "out"_a.noconvert(),
           "Copy one state into `out` (uint8 [state_bytes]), to keep it elsewhere.")
      .def("write_state", &write_state, "location"_a, "values"_a.noconvert(), "The reverse of `read_state`.")
      .def("clear_state", &Program::clear_state, "slot"_a, "position"_a,
           "Zeros, as if `position` rows had been read: to measure a step there.")
      .def("probe_kv", &probe_kv, "tokens"_a.noconvert(),
           "How much 4-bit keys and values change each layer's attention, while it reads a text of these tokens: the\n"
           "root of sum |from 4 bit - from 8 bit|^2 / sum |from 8 bit|^2 over all rows, from the same q, k and v.\n\n"
           "Caches of its own are used; may be called before `make_kv`. Errors as in `step`.")
      .def("step", &step, "tokens"_a.noconvert(), "positions"_a.noconvert(), "sequences"_a.noconvert(),
           "block_tables"_a.noconvert(), "out_rows"_a.noconvert(), "logits"_a.noconvert(), "begin"_a = 0, "end"_a = 0,
           "inputs"_a.noconvert() = nb::none(), "hidden"_a.noconvert() = nb::none(),
           "drafted"_a.noconvert() = nb::none(), kStepHelp)
      .def("time_phases", &Program::time_phases, "on"_a,
           "From now on steps on the CPU keep what each of their phases took.")
      .def("phase_times", &phase_times, nb::sig("def phase_times(self) -> list[tuple[str, str, float, float]]"),
           "Of the last step, phase by phase: operation, what it did, seconds that the calling thread was busy, and\n"
           "seconds it waited for the others. Empty unless `time_phases`.")
      .def("watch", &watch, "weight"_a,
           "From now on steps on the CPU add up the squares of what `weight`, one of bf16, is multiplied with; what was\n"
           "added before is forgotten. Raises ValueError for another weight, RuntimeError while a step is running.")
      .def("squares", &squares, "weight"_a,
           "The sums, float64 [columns], over all rows since `watch`. Raises ValueError where it is not watched.")
      .def("set_threads", &Program::set_threads, "threads"_a, nb::call_guard<nb::gil_scoped_release>(),
           "From now on so many threads compute; 0: one a physical core. No bit of what they compute changes.\n\n"
           "Fewer when the system has no more to give. Raises RuntimeError while a step is running.")
      .def("set_prefetch", &Program::set_prefetch, "bytes"_a,
           "From now on one row asks for weights so many bytes ahead, a multiple of 64 up to 1 MiB; 0: not at all.\n"
           "No bit of what is computed changes. Raises RuntimeError while a step is running, ValueError.")
      .def_prop_ro("prefetch", &Program::prefetch, "Bytes that one row asks for weights ahead.")
      .def_prop_ro("takes_prefetch", &Program::takes_prefetch, "Whether its kernels heed `set_prefetch`.")
      .def_prop_ro("hidden", &Program::hidden, "Numbers of a row of the residual stream.")
      .def_prop_ro("layers", &Program::layers, "Layers: each an `attend` or `short_conv` and the `gated_mlp` after it.")
      .def_prop_ro("kv_layers", &Program::kv_layers, "Layers with keys and values.")
      .def_prop_ro("vocab", &Program::vocab, "Logits of a row; 0 before `head`.")
      .def_prop_ro("kv_bits", &Program::kv_bits, "Bits of each such layer's cached keys and values; empty before `make_kv`.")
      .def_prop_ro("kv_windows", &Program::kv_windows,
                   "Of each KV group, the layers that look back equally far: how many tokens a query sees, 0 for all; in\n"
                   "the order of their first layers.")
      .def_prop_ro("kv_blocks", &Program::kv_blocks, "Blocks of each KV group; empty before `make_kv`.")
      .def_prop_ro("kv_group_bytes", &kv_group_bytes, "Bytes of one block of each KV group, all its layers.")
      .def_prop_ro(
          "kv_block_bytes", [](const Program& one) { return one.kv_block_bytes(); },
          "Bytes of one block of the KV cache, all layers; 0 before `make_kv`.")
      .def_prop_ro("kv_bytes", &Program::kv_bytes, "Bytes of the KV cache, whether touched yet or not.")
      .def_prop_ro("states", &Program::states, "Operations that keep a state; 0: sequences have keys and values only.")
      .def_prop_ro("state_bytes", &Program::state_bytes, "Bytes of one sequence's state, all operations together.")
      .def_prop_ro("state_cache_bytes", &Program::state_cache_bytes, "Bytes of all states and snapshots.")
      .def_prop_ro("weight_bytes", &Program::weight_bytes, "Bytes of the packed weights; a tied head counts once.")
      .def_prop_ro("isa", &Program::isa, "The kernel set that runs.")
      .def_prop_ro("phases", &Program::phases, "Phases of the last step; its threads wait for each other after each.")
      .def_prop_ro("threads", &Program::threads, "Threads, the calling one included.")
      .def_prop_ro("max_rows", &Program::max_rows, "Rows computed at once; longer steps are cut.");
  bind_moe(program);
}
