// A small random model, run in chunks of many sizes: the whole of the core, without Python.
#include <algorithm>
#include <cmath>

#include "bits.h"
#include "core/program.h"
#include "core/sampling.h"

namespace {

constexpr size_t kHidden = 128, kHeads = 4, kKvHeads = 2, kHeadDim = 32, kWide = 192, kVocab = 96;
constexpr size_t kTokens = 290, kWidth = 10;  // more than one KV split
constexpr size_t kTexts = 16;

uint16_t half_scale(Random& random) { return static_cast<uint16_t>(0x2400 | (random.bits() & 0x3ff)); }

WeightRef random_weight(Random& random, WeightKind kind, size_t group, std::vector<size_t> parts, size_t cols,
                        bool interleaved = false) {
  auto weight = std::make_shared<Weight>();
  weight->shape.kind = kind;
  weight->shape.cols = cols;
  weight->shape.group = kind == kBf16 ? 0 : group;
  weight->shape.parts = std::move(parts);
  weight->shape.interleaved = interleaved;
  weight->shape.activation_bits = kind == kBf16 ? 0 : kind == kInt8 ? 16 : 8;
  check_shape(weight->shape);
  weight->panels = weight->shape.panels();
  weight->panel_bytes = weight->shape.panel_bytes();
  weight->memory = take_piece(weight->bytes(), "a test's weight");
  uint8_t* at = weight->memory.data;
  const size_t tile_bytes = 64 + 4 * group * bits_of(kind);
  for (size_t i = 0; i < weight->bytes(); ++i) at[i] = static_cast<uint8_t>(random.bits());
  for (size_t i = 0; i < weight->bytes() / 2 && kind == kBf16; ++i) {
    const float w = random.value() * 0.1f;
    std::memcpy(at + 2 * i, reinterpret_cast<const uint8_t*>(&w) + 2, 2);
  }
  for (size_t tile = 0; tile + tile_bytes <= weight->bytes() && kind != kBf16; tile += tile_bytes)
    for (size_t r = 0; r < kPanelRows; ++r) {
      const uint16_t scale = half_scale(random);
      std::memcpy(at + tile + 2 * r, &scale, sizeof scale);
    }
  return weight;
}

Norm norm(Random& random, bool centered = false) { return {some(random, kHidden, 1.0f), 1e-5f, centered, {}}; }

void add_layer(Program& program, Random& random, WeightKind kind, size_t group, size_t rope, size_t layer) {
  AttendOp attend;
  attend.norm = norm(random, layer == 3);
  const size_t q = kHeads * kHeadDim, kv = kKvHeads * kHeadDim;
  attend.qkv = random_weight(random, kind, group, {q, kv, kv}, kHidden);
  attend.o = random_weight(random, kind, group, {kHidden}, q);
  if (layer == 1) attend.bias = some(random, q + 2 * kv, 1.0f);
  if (layer == 2) attend.q_norm = attend.k_norm = some(random, kHeadDim, 1.0f);
  attend.heads = kHeads;
  attend.kv_heads = kKvHeads;
  attend.head_dim = kHeadDim;
  attend.rope = attend.query_rope = rope;
  if (layer == 1) attend.softcap = 4.0f;
  attend.scale = 0.17f;
  attend.window = layer == 3 ? 70 : 0;
  program.attend(std::move(attend));
  MlpOp mlp;
  mlp.norm = norm(random);
  mlp.gate_up = random_weight(random, kind, group, {kWide, kWide}, kHidden, true);
  mlp.activation = static_cast<Activation>(layer % 3);
  mlp.down = random_weight(random, kind, group, {kHidden}, kWide);
  program.gated_mlp(std::move(mlp));
}

// Multiplies and takes the remainder: every bit of every logit, in order.
uint64_t hashed(uint64_t hash, const Floats& values) {
  for (const float v : values) {
    uint32_t bits = 0x7fc00000;
    if (v == v) std::memcpy(&bits, &v, sizeof bits);
    hash = (hash ^ bits) * 0x100000001b3u;
  }
  return hash;
}

void add_all(Program& program) {
  Random random(11);
  double inv_freq[kHeadDim / 2];
  for (size_t i = 0; i < std::size(inv_freq); ++i) inv_freq[i] = 1.0 / static_cast<double>(1 + i * i);
  const size_t rope = program.rope_table(inv_freq, std::size(inv_freq), kWidth * kKvBlock, 1.0, 0.0, 1.0);
  program.embed({random_weight(random, kBf16, 0, {kVocab}, kHidden), 1.0f});
  add_layer(program, random, kInt4, 32, rope, 0);
  add_layer(program, random, kInt3, 64, rope, 1);
  add_layer(program, random, kInt8, 32, rope, 2);
  add_layer(program, random, kBf16, 0, rope, 3);
  program.head({norm(random), random_weight(random, kInt8, 64, {kVocab}, kHidden), 0.0f});
}

// Rows of a step, and what comes of them.
struct Rows {
  std::vector<int32_t> tokens, positions, sequences, every;
  Floats logits, hidden;

  void add(size_t token, size_t position, size_t sequence) {
    every.push_back(static_cast<int32_t>(tokens.size()));
    tokens.push_back(static_cast<int32_t>(token));
    positions.push_back(static_cast<int32_t>(position));
    sequences.push_back(static_cast<int32_t>(sequence));
  }

  void run(Program& program, const std::vector<int32_t>& tables, size_t width, const char* isa) {
    logits.resize(tokens.size() * kVocab);
    hidden.resize(tokens.size() * kHidden);
    StepInput input{};
    input.rows = tokens.size();
    input.tokens = tokens.data();
    input.positions = positions.data();
    input.sequences = sequences.data();
    input.n_sequences = tables.size() / width;
    input.width = width;
    input.block_tables = tables.data();
    input.outs = tokens.size();
    input.out_rows = every.data();
    input.logits = logits.data();
    input.hidden = hidden.data();
    program.step(input, [] { return false; });
    for (const float v : logits) expect(std::isfinite(v), isa, "a logit that is not finite");
  }
};

// One text, in chunks of many sizes.
uint64_t read_text(Program& program, const char* isa, uint64_t hash) {
  Random random(12);
  std::vector<int32_t> table(kWidth);
  for (size_t i = 0; i < kWidth; ++i) table[i] = static_cast<int32_t>((i * 7 + 3) % kWidth);
  const size_t chunks[] = {1, 2, 5, 40, 1, 8, 16, 33, 3, 90};
  for (size_t at = 0, turn = 0; at < kTokens; ++turn) {
    Rows rows;
    const size_t end = std::min(at + chunks[turn % std::size(chunks)], kTokens);
    for (; at < end; ++at) rows.add(random.below(kVocab), at, 0);
    rows.run(program, table, kWidth, isa);
    hash = hashed(hash, rows.logits);
  }
  return hash;
}

// Texts that are written together, one more with each step.
uint64_t write_together(Program& program, const char* isa, uint64_t hash) {
  Random random(13);
  std::vector<int32_t> tables(kTexts);
  for (size_t i = 0; i < kTexts; ++i) tables[i] = static_cast<int32_t>((i * 7 + 3) % kTexts);
  for (size_t texts = 1; texts <= kTexts; ++texts) {
    Rows rows;
    for (size_t i = 0; i < texts; ++i) rows.add(random.below(kVocab), texts - 1 - i, i);
    rows.run(program, tables, 1, isa);
    hash = hashed(hash, rows.logits);
    const SamplingSettings settings{0.8f, texts, 0.9, 0.01, 1.1f};
    hash = (hash ^ static_cast<uint64_t>(sample(rows.logits.data(), kVocab, {{rows.tokens.data(), texts}, {}, {}}, settings, 7, texts))) *
           0x100000001b3u;
  }
  return hash;
}

// What is beside the steps.
uint64_t look_around(Program& program, const char* isa, uint64_t hash) {
  std::vector<uint8_t> block(program.kv_block_bytes()), again(block.size());
  program.read_kv(1, block.data(), block.size());
  program.write_kv(2, block.data(), block.size());
  program.read_kv(2, again.data(), again.size());
  expect(block == again, isa, "read_kv and write_kv");
  const int32_t tokens[] = {3, 1, 4, 1, 5};
  Floats rows(std::size(tokens) * kHidden);
  program.embed_rows(tokens, std::size(tokens), rows.data());
  for (const double error : program.probe_kv(tokens, std::size(tokens), [] { return false; }))
    expect(error > 0 && error < 1, isa, "probe_kv");
  return hashed(hash, rows);
}

}  // namespace

void run_model(const char* isa, size_t threads, size_t kv_bits) {
  Program program(kHidden, threads, isa, 40);
  add_all(program);
  program.make_kv(std::vector<size_t>(program.kv_groups(), kTexts), std::vector<size_t>(program.kv_layers(), kv_bits));
  uint64_t hash = read_text(program, isa, 0xcbf29ce484222325u);
  program.set_threads(threads + 1);
  hash = write_together(program, isa, hash);
  hash = look_around(program, isa, hash);
  std::printf("model %s kv%zu %016llx\n", isa, kv_bits, static_cast<unsigned long long>(hash));
}
