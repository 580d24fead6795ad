// Mixtures of experts, and the pool of those that do not all fit into memory.
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "bindings/arguments.h"
#include "bindings/bindings.h"
#include "core/expert_pool.h"

using namespace nb::literals;

namespace {

using MaybeTable = std::optional<Matrix<const float>>;

MoeOp::Expert make_expert(const std::pair<std::shared_ptr<Weight>, std::shared_ptr<Weight>>& pair) {
  MoeOp::Expert expert;
  expert.gate_up = pair.first;
  expert.down = pair.second;
  return expert;
}

// Row i of the table is of expert i.
void put_rows(std::vector<MoeOp::Expert>& experts, Floats MoeOp::Expert::*field, const MaybeTable& table) {
  if (!table) return;
  REQUIRE(table->shape(0) == experts.size(), "biases of %zu experts, but there are %zu", table->shape(0),
          experts.size());
  const size_t columns = table->shape(1);
  for (size_t i = 0; i < experts.size(); ++i)
    (experts[i].*field).assign(table->data() + i * columns, table->data() + (i + 1) * columns);
}

void moe(Program& program, const Values& norm, float eps, std::shared_ptr<Weight> router,
         const std::vector<std::pair<std::shared_ptr<Weight>, std::shared_ptr<Weight>>>& experts, size_t top_k,
         const std::string& score, bool renormalise, float scale, const std::string& activation,
         const MaybeValues& choice_bias, const std::optional<std::pair<std::shared_ptr<Weight>, std::shared_ptr<Weight>>>& shared,
         bool shared_gated, const MaybeValues& post_norm, const MaybeValues& router_bias, const MaybeTable& gate_bias,
         const MaybeTable& up_bias, const MaybeTable& down_bias, size_t groups, size_t top_groups, float least_sum,
         float added_sum, float limit, float alpha, std::shared_ptr<Weight> into, std::shared_ptr<Weight> out_of,
         std::shared_ptr<ExpertPool> pool, size_t pool_layer, const MaybeValues& router_norm,
         const MaybeValues& expert_scale, const MaybeValues& beside_norm, float stream_scale) {
  REQUIRE(score == "softmax" || score == "sigmoid", "scores are '%.40s', but must be softmax or sigmoid", score.c_str());
  MoeOp op;
  op.norm = make_norm(norm, eps);
  op.router = std::move(router);
  op.choice_bias = to_vector(choice_bias);
  op.top_k = top_k;
  op.score = score == "softmax" ? MoeOp::kSoftmax : MoeOp::kSigmoid;
  op.renormalise = renormalise;
  op.scale = scale;
  op.router_bias = to_vector(router_bias);
  op.groups = groups;
  op.top_groups = top_groups;
  op.least_sum = least_sum;
  op.added_sum = added_sum;
  op.limit = limit;
  op.alpha = alpha;
  for (const auto& expert : experts) op.experts.push_back(make_expert(expert));
  put_rows(op.experts, &MoeOp::Expert::gate_bias, gate_bias);
  put_rows(op.experts, &MoeOp::Expert::up_bias, up_bias);
  put_rows(op.experts, &MoeOp::Expert::down_bias, down_bias);
  op.pool = std::move(pool);
  op.pool_layer = pool_layer;
  if (shared) op.shared = make_expert(*shared);
  op.shared_gated = shared_gated;
  op.into = std::move(into);
  op.out_of = std::move(out_of);
  op.squares = activation == "relu2";
  op.activation = op.squares ? kSilu : make_activation(activation);
  op.post_norm = to_vector(post_norm);
  op.router_norm = make_norm(router_norm, eps, std::nullopt);
  op.expert_scale = to_vector(expert_scale);
  op.beside_norm = to_vector(beside_norm);
  op.stream_scale = stream_scale;
  program.moe(std::move(op));
}

using Layers = std::vector<std::tuple<uint64_t, size_t, size_t>>;  // first byte, experts, bytes of each

void open_pool(ExpertPool* self, int file, const std::string& name, const Layers& layers, size_t bytes) {
  std::vector<ExpertPool::Layer> found;
  for (const auto& [at, experts, size] : layers) found.push_back({at, experts, size});
  new (self) ExpertPool(file, name, found, bytes);
}

}  // namespace

void bind_experts(nb::module_& m) {
  const auto count = [](auto field) { return [field](const ExpertPool& pool) { return pool.counts().*field; }; };
  using Counts = ExpertPool::Counts;
  nb::class_<ExpertPool>(m, "ExpertPool",
                         "Packed experts that stay in a file, of which those that steps want are read into slots; what\n"
                         "was passed over longest makes room.")
      .def("__init__", &open_pool, "file"_a, "name"_a, "layers"_a, "bytes"_a,
           "`layers` are (first byte, experts, bytes of each), in the order in which steps want them. The slots take\n"
           "`bytes`, but as many as the experts of a layer are made at least. The file stays open; `name` is for people.\n\n"
           "Raises ValueError, Corrupt where the file is too short, MemoryError with the size.")
      .def_prop_ro("slots", &ExpertPool::slots, "Experts that can be held at once.")
      .def_prop_ro("slots_bytes", &ExpertPool::bytes, "Bytes of the slots, whether touched yet or not.")
      .def_prop_ro("experts", count(&Counts::experts), "Experts of all layers.")
      .def_prop_ro("nbytes", count(&Counts::bytes), "Their bytes.")
      .def_prop_ro("held", count(&Counts::held), "Experts that are in memory.")
      .def_prop_ro("held_bytes", count(&Counts::held_bytes), "Their bytes.")
      .def_prop_ro("wanted", count(&Counts::wanted), "Experts that steps wanted so far; each once a step and layer.")
      .def_prop_ro("read", count(&Counts::read), "Of these, those that had to be read.")
      .def_prop_ro("read_bytes", count(&Counts::read_bytes), "Bytes that were read for them.");
}

void bind_moe(nb::class_<Program>& program) {
  program.def_prop_ro("experts", &Program::experts, "The pool of its experts; None where all are in memory.");
  program.def("moe", &moe, "norm"_a.noconvert(), "eps"_a, "router"_a, "experts"_a, "top_k"_a, "score"_a, "renormalise"_a,
           "scale"_a, "activation"_a, "choice_bias"_a.noconvert() = nb::none(), "shared"_a = nb::none(),
           "shared_gated"_a = false, "post_norm"_a.noconvert() = nb::none(),
           "router_bias"_a.noconvert() = nb::none(), "gate_bias"_a.noconvert() = nb::none(),
           "up_bias"_a.noconvert() = nb::none(), "down_bias"_a.noconvert() = nb::none(), "groups"_a = 1,
           "top_groups"_a = 1, "least_sum"_a = 0.0f, "added_sum"_a = 0.0f, "limit"_a = 0.0f, "alpha"_a = 0.0f,
           "into"_a = nb::none(), "out_of"_a = nb::none(), "pool"_a = nb::none(), "pool_layer"_a = 0,
           "router_norm"_a.noconvert() = nb::none(), "expert_scale"_a.noconvert() = nb::none(),
           "beside_norm"_a.noconvert() = nb::none(), "stream_scale"_a = 1.0f,
           "x += the sum over the `top_k` experts that a row's `router` chose, ascending, of weight * down(act(gate) *\n"
           "up), each a pair of gate_up (interleaved; up alone: no gates) and down; `activation` as in `gated_mlp`. With\n"
           "`into` they read into * norm(x), and their sum goes through `out_of`. Weights are the scores (`softmax` over\n"
           "all, `sigmoid`),\n"
           "renormalised to a sum of 1 or not, times `scale`. The shared expert takes every row, by the sigmoid of the\n"
           "router's second part with `shared_gated`. `choice_bias` is added to scores where experts are chosen only;\n"
           "with `groups` only experts of the `top_groups` groups are whose best two sum to the most. Weights are\n"
           "divided by their sum, `least_sum` at least, plus `added_sum`. Biases of experts are [experts, rows]. With\n"
           "`limit` an expert is down(g * sigmoid(alpha * g) * (u + 1)), g = min(gate, limit), u = up within +-limit.\n"
           "With `pool` the experts' weights have no values: layer `pool_layer` of it has them. The router reads\n"
           "router_norm(x), if there is such a norm; weights of each expert are multiplied by its `expert_scale`. With\n"
           "`beside_norm` the experts read the x that the MLP before it reads, and x += beside_norm(what that adds +\n"
           "post_norm(sum)); x is then multiplied by `stream_scale`.");
}
