// A model as the native code sees it: embed, then attend and gated_mlp in turn, then head; weights, scratch memory, the
// KV cache and the threads that run it. `step` moves any number of rows (tokens) through all of it. Long because all
// operations stand side by side here.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "core/device.h"
#include "core/expert_pool.h"
#include "core/kv_cache.h"
#include "core/memory.h"
#include "core/pack.h"
#include "core/pool.h"
#include "core/row_file.h"
#include "core/state_cache.h"
#include "core/weight.h"
#include "kernels/table.h"

using Floats = std::vector<float>;

// cos and sin of position * inv_freq, made once in double precision.
struct RopeTable {
  size_t half = 0;  // frequencies: half of the values that are turned
  size_t positions = 0;
  Memory values;  // a position: cos[half], sin[half]
  const float* cos(size_t position) const {
    return reinterpret_cast<const float*>(values.data()) + position * 2 * half;
  }
  const float* sin(size_t position) const { return cos(position) + half; }
};

// RMSNorm; `centered`: LayerNorm, which takes the mean off first. No weight: there is no such norm, `eps` is that of the
// norm after.
struct Norm {
  Floats weight;
  float eps = 0;
  bool centered = false;
  Floats bias;  // or empty
  const Norm* get() const { return weight.empty() ? nullptr : this; }
};

struct EmbedOp {
  WeightRef weight;
  float scale = 1;
  float norm_eps = -1;  // of the norm without a weight that a row goes through last; below 0: there is none
};

// What every token gives to each layer beside the stream: part i of `size` values is norm(part i of project * x) +
// row(token) * scale, x the embedding. LayerInputOp reads its own part.
struct LayerInputsOp {
  WeightRef table;  // or, in its file:
  std::shared_ptr<const RowFile> rows;
  float scale = 1;
  WeightRef project;
  Floats norm;  // of a part
  float eps = 0;
  size_t size() const { return norm.size(); }
  const WeightShape& table_shape() const { return table != nullptr ? table->shape : rows->shape(); }
  size_t columns() const { return size() > 0 ? table_shape().cols : 0; }  // 0: there are no such inputs
};

// A program may begin with this instead of an embedding: x = weight * input, rows of numbers that the caller brings.
struct MixOp {
  WeightRef weight;
};

// x += [post_norm] o(attention(q, k, v of norm(x))). An empty vector: there is no such thing in this model.
struct AttendOp {
  Norm norm;
  WeightRef qkv;
  Floats bias;  // given as q | k | v, unpadded
  Floats q_norm, k_norm;  // of head_dim values: of each head; of all heads' values: of all of them at once
  Floats v_norm;          // of head_dim values
  bool norm_after_rope = false;
  WeightRef o;
  Floats o_bias, post_norm;
  float post_eps = 0;
  Floats sinks;  // of each head a score that takes part in the softmax and has no value; or empty
  size_t heads = 0, kv_heads = 0, head_dim = 0;
  size_t rope = 0, query_rope = 0;  // tables for keys and for queries, of the first values of a head
  float scale = 0;
  float softcap = 0;  // of scores; 0: none
  size_t window = 0;  // tokens that a query sees, itself included; 0: all
  bool borrows = false;  // `layer` is another operation's, which writes the keys and values that this one reads
  size_t ahead = 0;      // queries are turned as if they stood so much later; set by Program
  size_t layer = 0;   // of the KV cache; set by Program, unless it borrows
  size_t group = 0;   // of the KV cache: layers of the same window; set by Program
  bool gated = false;  // the first part of qkv is queries, then as many gates, by whose sigmoid o's inputs are multiplied
  bool aside = false;  // the operation after it reads the same x, and adds both results; set by Program
  float out_scale = 1;  // of what o reads
  bool keys_are_values() const { return qkv->shape.parts.size() == 2; }  // before they are normed
  bool norms_all() const {
    return heads > 1 && !norm_after_rope && q_norm.size() == heads * head_dim && k_norm.size() == kv_heads * head_dim;
  }
};

// x += [post_norm] down(act(gate) * up), gate and up of norm(x), their panels alternating; or down(act(up)).
struct MlpOp {
  Norm norm;
  WeightRef gate_up;             // not interleaved: up alone
  Floats gate_bias, up_bias;     // padded to whole panels
  Activation activation = kSilu;
  WeightRef down;
  Floats down_bias, post_norm;
  float post_eps = 0;
  bool beside = false;  // reads what the attention before it reads
  bool aside = false;   // as in AttendOp, but with its norm applied
  bool squares = false;   // the activation is relu(x)²
  float inner_scale = 1;  // of what down reads
  float scale = 1;        // of the stream, once all is added
  bool gated() const { return gate_up->shape.interleaved; }
};

// x = (x + [post_norm] project(act(gate * x) * part)) * scale, `part` the layer's own of what LayerInputsOp makes.
struct LayerInputOp {
  WeightRef gate;
  Activation activation = kSilu;
  WeightRef project;
  Floats post_norm;
  float eps = 0;
  float scale = 1;
  size_t part = 0;  // set by Program: they are taken in turn
};

// x += out(c * conv(b * u)); b | c | u are the rows of `in` times norm(x), conv is causal and by column.
struct ShortConvOp {
  Norm norm;
  WeightRef in;
  Floats in_bias;    // b | c | u, unpadded
  Floats taps;       // [length][hidden], the oldest row's first
  Floats taps_bias;  // [hidden]
  size_t length = 0;
  WeightRef out;
  Floats out_bias;
  size_t state = 0;  // of the state cache; set by Program
};

// x += [post_norm] the sum over the experts that a row's router chose, in ascending order, of weight * down(act(gate) *
// up), or of down(act(up)), gate and up of norm(x); and of the shared expert, if there is one. With `into` the chosen
// experts read into * norm(x), and what they sum to is multiplied by `out_of`. With `beside_norm`, which norms the sum of
// what it and the MLP before it add, it reads the x of that one.
struct MoeOp {
  struct Expert {
    WeightRef gate_up, down;  // not interleaved: up alone
    Floats gate_bias, up_bias, down_bias;  // all or none; padded to whole panels
  };
  enum Score { kSoftmax, kSigmoid };
  static constexpr size_t kMostGroups = 64;
  Norm norm;
  Norm router_norm;    // of what the router reads; no weight: that is what experts read
  WeightRef router;    // rows: the experts; a second part of one row is the gate of the shared expert
  Floats router_bias;  // added to what the router gives
  Floats choice_bias;  // added to the scores where experts are chosen, not where they are weighed
  // Experts in a row are a group. Only those of the `top_groups` groups are chosen whose best two sum to the most.
  size_t groups = 1, top_groups = 1;
  size_t top_k = 0;
  Score score = kSoftmax;
  bool renormalise = false;  // weights of a row sum to 1
  float least_sum = 0;       // what they are divided by at least
  float added_sum = 0;       // and what is added to that
  float scale = 1;           // of the weights
  Floats expert_scale;       // and of those of each expert; or empty
  std::vector<Expert> experts;
  std::shared_ptr<ExpertPool> pool;  // or null; has the panels of this number among its layers, the weights have none
  size_t pool_layer = 0;
  Expert shared;
  WeightRef into, out_of;    // both or none
  bool shared_gated = false;  // by the sigmoid of its gate
  Activation activation = kSilu;
  bool squares = false;  // the activation is relu(x)²
  float limit = 0;  // above 0, instead of that: g * sigmoid(alpha * g) * (u + 1), g = min(gate, limit), u = up clamped
  float alpha = 0;
  Floats post_norm, beside_norm;
  float stream_scale = 1;  // once all is added
  bool gated() const { return experts[0].gate_up->shape.interleaved; }
  bool beside() const { return !beside_norm.empty(); }
};

constexpr size_t kMostDeltaHead = 512, kMostDeltaLength = 8;

// Mamba-2 (Dao and Gu, 2024) is the same without a correction: q, k and v are its C, B and x, heads its groups. Of a head,
// dt = softplus(dt_scale * a + dt_bias) within [dt_low, dt_high], decay = exp(-decay_rate * dt), delta = dt * v and
// o = q S + skip * v; what goes into `out` is o * silu(z_scale * z), normed by group or not, times `out_scale`.
struct ScanRule {
  Floats skip;  // of each head; empty: it is a delta net
  double dt_low = 0, dt_high = 0;
  float dt_scale = 1, z_scale = 1, out_scale = 1;
  size_t norm_groups = 0;        // of out_norm, which has a weight for each value; 0: no norm
  bool norm_before_gate = false;
};

// x += out(norm(o) * silu(z)), o being what value heads read of their states by the gated delta rule (Yang et al., 2025).
// q | k | v | z are the rows of `in` times norm(x), the rows of `gates` those of b | a. q, k and v go through a causal
// convolution by column and SiLU; q and k of each head get length 1, q also 1 / sqrt(key_dim). Of a value head,
// beta = beta_scale * sigmoid(b) and decay = exp(-decay_rate * softplus(a + dt_bias)).
struct DeltaOp {
  Norm norm;
  WeightRef in, gates;
  size_t heads = 0, value_heads = 0;  // several value heads in a row share a head of q and k
  size_t key_dim = 0, value_dim = 0;
  size_t length = 0;      // rows that the convolution sees
  Floats taps, taps_bias;  // [length][channels], the oldest row's first; [channels] or empty
  std::vector<double> decay_rate;
  Floats dt_bias;
  float beta_scale = 1;
  Floats out_norm;  // of value_dim values, for each head; of all heads' values for Mamba-2
  float out_norm_eps = 0;
  WeightRef out;
  ScanRule scan;
  bool beside = false;                    // reads what the attention before it reads
  Floats ones, query_length, key_length;  // set by Program
  size_t state = 0;                       // of the state cache; set by Program

  bool scans() const { return !scan.skip.empty(); }
  size_t channels() const { return 2 * heads * key_dim + value_heads * value_dim; }  // that are convolved
  size_t channel_of_value(size_t h) const { return 2 * heads * key_dim + h * value_dim; }
  size_t column(size_t row) const;       // where row `row` of q | k | v | z lies among the panels of `in`
  size_t gate_column(size_t row) const;  // the same of b | a
  size_t inputs_size() const { return (length - 1) * channels(); }
  size_t state_size() const { return inputs_size() + value_heads * key_dim * value_dim; }
  size_t row_size() const { return channels() + heads * key_dim + value_heads * (value_dim + 1); }
};

// What a layer is made of. A new kind is handled wherever one is visited with Cases, or does not compile.
using Op = std::variant<AttendOp, MlpOp, ShortConvOp, MoeOp, DeltaOp, LayerInputOp>;

template <class... Each>
struct Cases : Each... {
  using Each::operator()...;
};
template <class... Each>
Cases(Each...) -> Cases<Each...>;

struct HeadOp {
  Norm norm;
  WeightRef weight;
  float softcap = 0;  // 0: none
};

// One step's arguments. `sequences[i]` is the row of `block_tables` that row i's cache lies in.
struct StepInput {
  size_t rows;
  const int32_t* tokens;
  const int32_t* positions;
  const int32_t* sequences;
  size_t n_sequences, width;
  const int32_t* block_tables;  // [n_sequences][width]; what no row of the step sees may be anything
  size_t outs;
  const int32_t* out_rows;  // ascending
  float* logits;            // [outs][vocab]
  size_t begin = 0;         // layers that run: from this one on
  size_t end = 0;           // to the one before this; 0: to the last
  // The rows that are mixed, [rows][columns of the mix]; with begin > 0 the residual stream there, [rows][hidden].
  const float* inputs = nullptr;
  float* hidden = nullptr;  // or null: [rows][hidden], the residual stream after the layers that ran
  // Of each sequence, how many of its last rows are drafted; null: none. Only a state asks.
  const int32_t* drafted = nullptr;
  size_t group_stride = 0;  // from the block tables of a KV group to those of the next; 0: all have the same

  const int32_t* table(size_t group, size_t sequence) const {
    return block_tables + group * group_stride + sequence * width;
  }
};

struct KvProbe;

// What a phase of a step took, as the calling thread saw it.
struct PhaseTime {
  const char *operation, *phase;
  double busy;  // seconds with its own items and those it helped with
  double wait;  // seconds until the others were done
};

// Asked now and then on the calling thread; true: stop.
using Interrupted = std::function<bool()>;

// Where a step keeps what is between its phases. `rows` is max_rows; leading dimensions (_ld) are in elements.
struct Scratch {
  Memory memory;
  float* x = nullptr;         // [rows][x_ld]: what flows through the layers
  float* y = nullptr;         // [rows][x_ld]: before a post-norm
  float* qkv = nullptr;       // [rows][qkv_ld]
  float* attended = nullptr;  // [rows][attended_ld]
  float* hidden = nullptr;    // [rows][hidden_ld]: act(gate) * up
  float* inputs = nullptr;    // [rows][inputs_ld]: what LayerInputsOp makes
  // Attention: queries made ready for a quantized cache, [rows][attended_ld]; of each [rows][heads_ld]: the scale of
  // the query, the sum of its q, the softmax's m and l; results of KV splits that are not merged yet, and their number.
  int8_t* q8 = nullptr;
  float *q_scale = nullptr, *m = nullptr, *l = nullptr, *parts = nullptr;
  int32_t* q_sum = nullptr;
  size_t heads_ld = 0, parts_size = 0;
  std::unique_ptr<std::atomic<size_t>[]> arrived;
  // Rows of one sequence that attend together, over KV splits [first_split, end_split).
  struct Tile {
    size_t row, rows, first_split, end_split;
  };
  size_t x_ld = 0, qkv_ld = 0, attended_ld = 0, hidden_ld = 0, inputs_ld = 0, panel_ld = 2 * kPanelRows;
  size_t stored_ld = 0;  // bytes of a row of a table in its file
  // Rows made ready for a weight: quantized, or normed only. Shared by all threads, or, when there are few rows, one
  // copy a thread.
  struct Quantized {
    int8_t* q;      // [n][planes][q_ld]
    float* scale;   // [n][scale_ld]
    int32_t* sum;   // [n][scale_ld]
    float* normed;  // [n][x_ld]
  };
  size_t q_ld = 0, scale_ld = 0;
  size_t planes = 1;  // 2 when a weight wants activations of 16 bits
  Quantized shared{};
  Quantized produced{};  // what attention or the MLP quantized as it came, for o or down; no `normed`
  // Mixtures of experts. Pairs of a row and an expert that it goes to: first by row, then by expert, ascending.
  struct Routes {
    size_t* expert;       // [rows][top_k]
    float* weight;        // of each
    size_t* first;        // [experts + 1]: where an expert's pairs begin
    size_t* next;         // [experts]
    size_t* active;       // [experts]: those that have rows, and how many these are
    size_t* active_count;
    size_t* row;          // [rows * top_k], by expert
    float* row_weight;
  };
  Routes routes{};
  size_t most_experts = 0, top_k = 0, router_ld = 0;  // of any mixture
  size_t delta_state = 0;  // floats of a head of any delta net
  bool shares_expert = false, floats_in_experts = false;
  float* router = nullptr;         // [rows][router_ld]
  Quantized gathered{};            // [rows * top_k]: their inputs, by expert
  Quantized expert_rows{};         // what they make for `down`; then the shared expert's, row by row; no `normed`
  float* expert_hidden = nullptr;  // the same where it stays float, [..][hidden_ld]
  size_t latent_ld = 0;
  float* latent = nullptr;  // what experts read, and then their sum, where that is not as wide as the stream
  struct PerThread {
    Quantized few;             // kFewRows rows
    float* row;                // one row of x_ld
    float* wide;               // one row of inputs_ld
    uint8_t* stored;           // one row of a table in its file
    float* panel;              // [rows][panel_ld]: output of one panel, or of the gates and ups of one group of down
    Tile* tiles;               // at most one a row
    float* query;              // the query heads of one KV head, and made ready for a quantized cache
    int8_t* query_8;
    float* query_scale;
    int32_t* query_sum;
    float* room;               // of AttendJob
    float* sums;               // [rows][32]: of a mixture's panel
    float* state;              // of a head of a delta net, after drafted rows
  };
  std::vector<PerThread> per_thread;  // one a thread
};

class Program {
 public:
  // threads 0: one a physical core. isa "": the best here.
  Program(size_t hidden, size_t threads, const std::string& isa, size_t max_rows);

  // A weight for this program, made by its own threads; as `pack`.
  std::shared_ptr<Weight> pack_weight(const WeightShape& shape, const std::vector<StoredPart>& parts);
  // Each throws std::invalid_argument when shapes disagree, with the numbers.
  // Times attention_factor * (1 + growth * log(1 + floor(position / every))).
  size_t rope_table(const double* inv_freq, size_t half, size_t positions, double attention_factor, double growth,
                    double every);
  void embed(EmbedOp op);
  void layer_inputs(LayerInputsOp op);  // after embed
  void mix(MixOp op);
  void attend(AttendOp op);
  void gated_mlp(MlpOp op);
  void layer_input(LayerInputOp op);
  void short_conv(ShortConvOp op);
  void moe(MoeOp op);
  void delta_net(DeltaOp op);
  void head(HeadOp op);
  // Last: the program is complete. Again: an empty cache of another size. `blocks` are those of each KV group, `bits` those
  // of each layer.
  void make_kv(const std::vector<size_t>& blocks, const std::vector<size_t>& bits);
  // Instead of make_kv, before attend: all attention reads the cache of `lender`, which must outlive this program. A row at
  // position p is a query of position p + 1, which sees what is there before it.
  void borrow_kv(Program& lender);
  // States of recurrent operations, if there are such: sequence i of a step has slot i, and `snapshots` more states can
  // be held. A slot keeps up to `drafts` drafted rows. Again: empty ones.
  void make_state(size_t slots, size_t snapshots, size_t drafts);
  // `rows` of the rows that the last step drafted are right: the slot's state moves on by them.
  void advance_state(size_t slot, size_t rows);
  // One state from one place to another; places after the slots are snapshots. `position` is where it belongs.
  void copy_state(size_t from, size_t to, size_t position);
  // One state, to keep it elsewhere and to bring it back; `bytes` must be state_bytes().
  void read_state(size_t place, uint8_t* out, size_t bytes);
  void write_state(size_t place, const uint8_t* in, size_t bytes);
  // Zeros in a slot, as if `position` rows had been read: to measure a step there.
  void clear_state(size_t slot, size_t position);
  // Of each layer, how far attention from a 4-bit cache is from that of an 8-bit one, relative to its size, when one text
  // of these tokens is read. Both are caches of its own; make_kv need not have been called. Empty when interrupted.
  std::vector<double> probe_kv(const int32_t* tokens, size_t count, const Interrupted& interrupted);

  const float* ones() const { return ones_.data(); }  // [hidden], where the embedding is normed
  // Rows of the embedding, as the first layer gets them: out[n][hidden].
  void embed_rows(const int32_t* tokens, size_t n, float* out) const;

  // False when `interrupted` said so; the program stays usable, and the rows' slots of the cache hold anything.
  bool step(const StepInput& input, const Interrupted& interrupted);

  // What a device needs to know of a complete program to run it.
  struct Parts {
    const EmbedOp& embed;
    const MixOp& mix;
    const LayerInputsOp& layer_inputs;
    const std::vector<Op>& ops;
    const HeadOp& head;
    const std::vector<RopeTable>& ropes;
    const std::vector<size_t>& layer_ops;
  };
  Parts parts() const { return {embed_, mix_, layer_inputs_, ops_, head_, ropes_, layer_ops_}; }
  // From now on steps run on `device`, which has loaded this program. Before make_kv. Frees the weights here, but for the
  // embedding and the table of inputs by layer, whose rows can still be asked for.
  void move_to(std::unique_ptr<Device> device);
  const Device* device() const { return device_.get(); }

  size_t hidden() const { return hidden_; }
  size_t layers() const { return layer_ops_.size(); }
  size_t kv_layers() const { return layers_.size(); }
  // Columns of the inputs of a step that begins at this layer; 0: it needs none.
  size_t input_columns(size_t begin) const;
  // From now on so many threads compute; 0: one a physical core. No bit of what they compute changes.
  void set_threads(size_t threads);
  // From now on one row asks for weights so many bytes ahead, whole lines of the cache; 0: not. No bit changes. Kernel
  // sets without `takes_prefetch` pass it over.
  void set_prefetch(size_t bytes);
  size_t prefetch() const { return prefetch_; }
  bool takes_prefetch() const { return device_ == nullptr && kernels_.takes_prefetch; }

  size_t max_rows() const { return max_rows_; }
  size_t threads() const { return pool_.threads(); }
  // The instruction set, or what the device calls its kernels.
  std::string isa() const { return device_ != nullptr ? device_->kernels() : kernels_.isa; }
  size_t vocab() const { return head_.weight ? head_.weight->shape.rows() : 0; }
  size_t kv_bytes() const { return kv_.bytes(); }
  // Layers that look back equally far are a group, which has blocks and block tables of its own: their windows, in the
  // order of their first layers. A program without attention has a group all the same.
  const std::vector<size_t>& kv_windows() const { return windows_; }
  size_t kv_groups() const { return std::max<size_t>(windows_.size(), 1); }
  const std::vector<size_t>& kv_blocks() const { return kv_.blocks(); }
  size_t kv_block_bytes(size_t group = KvCache::kAllGroups) const { return kv_.block_bytes(group); }
  // One block of the cache, all layers of a group or of all, to keep it elsewhere and to bring it back; `bytes` must be
  // kv_block_bytes(group). Throws std::runtime_error while a step is running.
  void read_kv(size_t block, uint8_t* out, size_t bytes, size_t group = KvCache::kAllGroups);
  void write_kv(size_t block, const uint8_t* in, size_t bytes, size_t group = KvCache::kAllGroups);
  std::vector<size_t> kv_bits() const;  // of each layer; empty before make_kv
  size_t states() const { return states_.size(); }  // operations that keep one
  size_t state_bytes() const;                      // of one sequence
  size_t state_cache_bytes() const { return state_.bytes(); }
  size_t weight_bytes() const;  // of a pool of experts its slots
  const std::shared_ptr<ExpertPool>& experts() const { return experts_; }  // or null: all are held
  // From now on steps on the CPU keep what each of their phases took; `phase_times` are those of the last step.
  void time_phases(bool on) { times_phases_ = on; }
  const std::vector<PhaseTime>& phase_times() const { return phase_times_; }
  size_t phases() const { return phases_; }  // of the last step: its threads wait for each other so often
  // From now on steps on the CPU add up, column by column, the squares of the rows that `weight` is multiplied with. It
  // must be one of bf16, whose rows stay floats.
  void watch(const WeightRef& weight);
  // These sums; null: it is not watched.
  std::vector<double>* squares(const Weight& weight);

 private:
  friend struct Step;
  void require_open(const char* what) const;
  void put_attention_aside();
  void put_mlp_aside();
  static void look_ahead(AttendOp& op);
  void require_block(size_t block, size_t bytes, size_t group) const;
  size_t op_of_layer(size_t layer) const;  // where it begins in ops_; past the last: their end
  bool run(const StepInput& input, const KvCache& kv, StateCache& state, KvProbe* probe, const Interrupted& interrupted);
  bool moves_state(const StepInput& input) const;
  void advance_heads(size_t slot, size_t rows);
  void require_location(size_t place, size_t bytes) const;
  const KvCache& cache() const { return lender_ != nullptr ? lender_->kv_ : kv_; }
  std::vector<KvCache::Layer> layers_of(const std::vector<size_t>& bits) const;
  bool run_on_device(const StepInput& input, const Interrupted& interrupted);
  std::set<const Weight*> weights() const;  // each once
  void lay_out_scratch();
  void check_step(const StepInput& input);
  void check_layers(const StepInput& input) const;
  void check_rows(const StepInput& input) const;
  struct Span {
    size_t from, to;
  };
  Span seen_blocks(size_t sequence, size_t group) const;
  void check_sequence(const StepInput& input, size_t sequence, size_t group) const;
  void check_writers(const StepInput& input, size_t group);
  void check_states(const StepInput& input);

  const size_t hidden_;
  const size_t max_rows_;
  const KernelTable& kernels_;
  size_t prefetch_ = kernels_.prefetch;
  Pool pool_;
  std::vector<RopeTable> ropes_;
  EmbedOp embed_;
  Floats ones_;
  LayerInputsOp layer_inputs_;
  size_t layer_input_ops_ = 0;
  size_t tail_ = 0;  // in ops_: from here on nothing is kept, so that rows without logits may be left out
  MixOp mix_;
  std::vector<Op> ops_;
  std::shared_ptr<ExpertPool> experts_;
  HeadOp head_;
  std::vector<size_t> layer_ops_;      // of each layer, its attention in ops_
  std::vector<KvCache::Layer> layers_;  // bits are chosen when a cache is made
  std::vector<size_t> windows_;         // of each KV group
  std::vector<StateCache::Layer> states_;
  StateCache state_;
  KvCache kv_;                       // without memory when there is a device
  Program* lender_ = nullptr;        // whose cache is read instead of `kv_`
  std::unique_ptr<Device> device_;  // or null: the CPU
  Scratch scratch_;
  size_t max_positions_ = 0;  // the shortest RoPE table
  size_t phases_ = 0;
  bool times_phases_ = false;
  std::vector<PhaseTime> phase_times_;
  std::map<const Weight*, std::vector<double>> squares_;  // of what is watched
  std::atomic_flag busy_;
  std::vector<int32_t> lengths_, starts_;  // of the step's sequences: one past their last row, and their first
  // Of each KV group and block, while a step is checked: sequence << 32 | block; -1: none.
  std::vector<std::vector<int64_t>> writer_;
};
