// A program on an NVIDIA card: the same phases as on the CPU, as launches in one stream; small steps as CUDA graphs.
#pragma once
#include <array>
#include <map>
#include <memory>
#include <vector>

#include "core/device.h"
#include "core/program.h"
#include "cuda/kernels.h"
#include "cuda/model.h"

namespace cuda {

struct Piece;
struct Pending;

constexpr size_t kGraphRows = 16;  // up to so many rows, a step is a graph, and attention has KV splits
constexpr size_t kHeadRows = 32;   // rows of logits made at once

class CudaDevice final : public Device {
 public:
  // `image`: the kernels, compiled for this card. Throws Full, std::invalid_argument with the numbers.
  CudaDevice(std::shared_ptr<const Session> session, const Program& program, const void* image, bool graphs,
             size_t threads);
  ~CudaDevice() override;

  void make_kv(const KvCache& layout) override;
  void read_kv(size_t block, uint8_t* out, size_t group) override;
  void write_kv(size_t block, const uint8_t* in, size_t group) override;
  void run(const StepInput& input, size_t first, size_t count) override;
  size_t weight_bytes() const override { return model_.bytes(); }
  std::string kernels() const override { return "sm_" + std::to_string(session_->card().sm); }

  size_t launches() const { return kernels_.launches(); }  // so far; what a graph repeats is not counted
  size_t graphs() const { return graphs_.size(); }
  size_t free_bytes() const { return session_->free_bytes(); }
  const Model& model() const { return model_; }

 private:
  using Key = std::array<size_t, 10>;

  void lay_out_scratch();
  void make_room(const Piece& piece);
  void bring_inputs(const Piece& piece);
  void enqueue_layers(const Piece& piece);
  void enqueue_head(Pending& pending, size_t first_out, size_t outs);
  void enqueue_start(const Piece& piece);
  void attend(const Piece& piece, const AttendOp& op, const OpOnCard& on, Pending& pending);
  void mlp(const Piece& piece, const MlpOp& op, const OpOnCard& on, Pending& pending);
  void layer_input(const Piece& piece, const LayerInputOp& op, const OpOnCard& on, Pending& pending);
  void enqueue_embed(const Piece& piece);
  void enqueue_layer_inputs(const Piece& piece);
  void bring_token_rows(const Piece& piece);
  bool needs_tokens(const Piece& piece) const;  // for inputs by layer
  // A norm of the stream, its values on the card.
  struct NormOnCard {
    const Norm& norm;
    const float *weight, *bias;
  };
  void ready(size_t rows, Pending& pending, const NormOnCard* norm, const WeightOnCard* to, const int* pick);
  void linear(const WeightOnCard& weight, size_t rows, float* out, size_t out_ld);
  void run_graph(const Piece& piece);
  void drop_graphs();
  void give_logits(const Piece& piece, size_t first_out, size_t outs) const;
  li::QuantizedRows quantized(const WeightOnCard& weight) const;
  li::RowSlots slots_of(const Piece& piece, size_t group) const;
  li::KvLayer kv_layer(size_t layer) const;
  size_t slots_for(const Piece& piece) const;

  std::shared_ptr<const Session> session_;
  const Program& program_;
  const bool use_graphs_;
  const Model model_;
  const Kernels kernels_;
  std::map<Key, Handle> graphs_;

  CardMemory kv_;
  std::vector<KvCache::Location> kv_locations_;

  // Scratch of one piece; leading dimensions in elements.
  size_t x_ld_ = 0, qkv_ld_ = 0, gate_up_ld_ = 0, float_ld_ = 0, q_ld_ = 0, s_ld_ = 0, planes_ = 1, heads_ = 0,
         query_ = 0, head_dim_ = 0, logits_ld_ = 0, inputs_ld_ = 0;
  CardMemory scratch_, parts_, ints_;
  float *x_ = nullptr, *y_ = nullptr, *aside_ = nullptr, *qkv_ = nullptr, *gate_up_ = nullptr, *floats_ = nullptr, *scales_ = nullptr,
        *q_scale_ = nullptr, *logits_ = nullptr, *inputs_ = nullptr, *token_rows_ = nullptr;
  li::i8 *q_ = nullptr, *q8_ = nullptr;
  int* sums_ = nullptr;
  PinnedMemory ints_pinned_, logits_pinned_, rows_pinned_, token_rows_pinned_;
};

}  // namespace cuda
