// Attention: q, k and v of every row; then keys and values are written; then the rows attend, in tiles of rows of one
// sequence, one KV split after the other. Those of long contexts are shared by the threads.
#include "core/attend.h"

#include <algorithm>

#include "core/linear.h"

namespace {

constexpr size_t kSplitBlocks = kKvChunk / kKvBlock;

// What all threads know of the phase, and what one thread does in it.
class Attention {
 public:
  Attention(const AttendOp& op, const Step& step, const KvCache& kv, Lane& lane)
      : op_(op),
        step_(step),
        kv_(kv),
        lane_(lane),
        per_thread_(step.s.per_thread[lane.id()]),
        shared_(op.heads / op.kv_heads),
        width_(shared_ * op.head_dim),
        k_start_(op.borrows ? 0 : op.qkv->shape.panel_of(1, 0) * kPanelRows),
        v_start_(op.borrows              ? 0
                 : op.keys_are_values() ? op.qkv->panels * kPanelRows  // a copy behind what the weight gave
                                        : op.qkv->shape.panel_of(2, 0) * kPanelRows),
        bits_(kv.bits(op.layer)),
        score_scale_(bits_ == 16 ? op.scale : op.scale / static_cast<float>(op.head_dim & -op.head_dim)) {}

  // False: leave the step.
  bool run() {
    make_tiles();
    if (!step_.apart) {  // rows of one sequence see each other: all keys and values must be there first
      const size_t groups = step_.rows * op_.kv_heads;
      lane_.phase("keys, values");
      lane_.share(groups, [&](size_t i) { make_row(i / op_.kv_heads, i % op_.kv_heads); });
      if (!lane_.sync()) return false;
    }
    for (size_t wave = 0; wave < waves_; ++wave) {
      lane_.phase("KV splits");
      lane_.share(split_tiles_ * op_.kv_heads * wave_splits_,
                  [&](size_t i) { attend_split(wave, i / wave_splits_, i % wave_splits_); });
      if (!lane_.sync()) return false;
    }
    if (split_tiles_ == tiles_) return true;
    lane_.phase("attention");
    lane_.draw((tiles_ - split_tiles_) * op_.kv_heads,
               [&](size_t i) { attend_whole(per_thread_.tiles[split_tiles_ + i / op_.kv_heads], i % op_.kv_heads); });
    return lane_.sync();
  }

 private:
  using Tile = Scratch::Tile;
  struct Table {
    const int32_t* blocks;
    size_t operator[](size_t i) const { return static_cast<size_t>(blocks[i]); }
  };
  struct Partial {
    float *m, *l, *acc;
  };

  size_t position(size_t row) const { return static_cast<size_t>(step_.positions[row]); }
  float* qkv(size_t row) const { return step_.s.qkv + row * step_.s.qkv_ld; }
  Table table(size_t row) const {
    return {step_.whole.table(op_.group, static_cast<size_t>(step_.sequences[row]))};
  }
  // The result of a row, at the heads of KV head h.
  Partial result(size_t row, size_t h) const {
    const Scratch& s = step_.s;
    const size_t one = row * s.heads_ld + h * shared_;
    return {s.m + one, s.l + one, s.attended + row * s.attended_ld + h * width_};
  }
  // The result of one KV split of a split tile; its rows lie close.
  Partial part(size_t group, size_t split) const {
    float* at = step_.s.parts + (group * wave_splits_ + split) * part_floats(most_rows_);
    return {at, at + most_rows_ * shared_, at + 2 * most_rows_ * shared_};
  }
  size_t part_floats(size_t rows) const { return rows * (2 * shared_ + width_); }

  // Bias, norm and RoPE of one head; `index` counts heads over q | k | v.
  void finish_head(float* head, size_t index, const Floats& norm, const RopeTable& rope, size_t at) const {
    const KernelTable& k = step_.k;
    const bool norms = !norm.empty() && !op_.norms_all();  // or done: norm_all
    if (!op_.bias.empty() && !op_.norms_all()) k.add(head, head, op_.bias.data() + index * op_.head_dim, op_.head_dim);
    if (norms && !op_.norm_after_rope) k.rms_norm(head, head, norm.data(), op_.head_dim, op_.norm.eps);
    k.rope(head, rope.cos(at), rope.sin(at), 2 * rope.half);
    if (norms && op_.norm_after_rope) k.rms_norm(head, head, norm.data(), op_.head_dim, op_.norm.eps);
  }

  // Query heads of KV head h, finished in place, and quantized where the cache wants it.
  void finish_queries(float* q, int8_t* q8, float* scale, int32_t* sum, size_t row, size_t h) const {
    for (size_t i = 0; i < shared_; ++i) {
      finish_head(q + i * op_.head_dim, h * shared_ + i, op_.q_norm, step_.rope(op_.query_rope),
                  position(row) + op_.ahead);
      if (bits_ == 16) continue;
      step_.k.rotate(q + i * op_.head_dim, op_.head_dim);
      step_.k.quantize(q8 + i * op_.head_dim, scale + i, sum + i, q + i * op_.head_dim, op_.head_dim, op_.head_dim);
      scale[i] *= score_scale_;
    }
  }

  // Writes key and value of KV head h into the cache, unless another layer has done so.
  void put(size_t row, size_t h) const {
    if (op_.borrows) return;
    const KernelTable& k = step_.k;
    float* key = qkv(row) + k_start_ + h * op_.head_dim;
    float* value = qkv(row) + v_start_ + h * op_.head_dim;
    if (op_.keys_are_values()) std::copy_n(key, op_.head_dim, value);
    finish_head(key, op_.heads + h, op_.k_norm, step_.rope(op_.rope), position(row));
    const size_t head = op_.heads + (op_.keys_are_values() ? 0 : op_.kv_heads) + h;
    if (!op_.bias.empty()) k.add(value, value, op_.bias.data() + head * op_.head_dim, op_.head_dim);
    if (!op_.v_norm.empty()) k.rms_norm(value, value, op_.v_norm.data(), op_.head_dim, op_.norm.eps);
    if (bits_ != 16) k.rotate(key, op_.head_dim);
    uint8_t* block = kv_.block(op_.layer, table(row)[position(row) / kKvBlock], h);
    const auto kv_put = bits_ == 4 ? k.kv_put_4 : bits_ == 8 ? k.kv_put_8 : k.kv_put_16;
    kv_put(block, position(row) % kKvBlock, key, value, op_.head_dim);
  }

  void make_row(size_t row, size_t h) const {
    const Scratch& s = step_.s;
    const size_t one = row * s.heads_ld + h * shared_;
    finish_queries(qkv(row) + h * width_, s.q8 + row * s.attended_ld + h * width_, s.q_scale + one, s.q_sum + one, row,
                   h);
    put(row, h);
  }

  // Lists the tiles, those that are to be split first: one that would keep its thread busy when the others are done.
  void make_tiles() {
    const size_t most = std::max<size_t>(kTileQueries / shared_, 1);
    size_t total = 0;
    for (size_t row = 0; row < step_.rows; ++tiles_) {
      size_t rows = 1;
      while (row + rows < step_.rows && rows < most && step_.sequences[row + rows] == step_.sequences[row] &&
             position(row + rows) == position(row) + rows)
        ++rows;
      Tile& tile = per_thread_.tiles[tiles_] = {row, rows, first_seen(position(row), op_.window) / kKvChunk,
                                         position(row + rows - 1) / kKvChunk + 1};
      total += tile.rows * (tile.end_split - tile.first_split) * op_.kv_heads;
      row += rows;
    }
    std::reverse(per_thread_.tiles, per_thread_.tiles + tiles_);  // later rows see more tokens: the long ones first
    const size_t threads = lane_.threads();
    const auto is_long = [&](const Tile& tile) {
      const size_t splits = tile.end_split - tile.first_split;
      return threads > 1 && splits > 1 && tile.rows * splits * threads * kSplitShare > total;
    };
    Tile* const tiles = per_thread_.tiles;
    split_tiles_ = static_cast<size_t>(std::partition(tiles, tiles + tiles_, is_long) - tiles);
    if (split_tiles_ == 0) return;
    size_t splits = 0;
    for (size_t i = 0; i < split_tiles_; ++i) {
      most_rows_ = std::max(most_rows_, per_thread_.tiles[i].rows);
      splits = std::max(splits, per_thread_.tiles[i].end_split - per_thread_.tiles[i].first_split);
    }
    wave_splits_ = std::min(splits, step_.s.parts_size / (split_tiles_ * op_.kv_heads * part_floats(most_rows_)));
    waves_ = (splits + wave_splits_ - 1) / wave_splits_;
  }

  // The tile's queries: in the step's memory, or, when its only row was not placed before, in the thread's own.
  AttendJob job_of(const Tile& tile, size_t h) {
    const Scratch& s = step_.s;
    AttendJob job{};
    job.position = position(tile.row);
    job.window = op_.window;
    job.rows = tile.rows;
    job.heads = shared_;
    job.head_dim = op_.head_dim;
    job.scale = op_.scale;
    job.softcap = op_.softcap;
    job.room = per_thread_.room;
    job.lds = s.heads_ld;
    if (step_.apart) {
      make_queries(tile.row, h);
      job.q = per_thread_.query;
      job.q8 = per_thread_.query_8;
      job.q_scale = per_thread_.query_scale;
      job.q_sum = per_thread_.query_sum;
      return job;
    }
    const size_t one = tile.row * s.heads_ld + h * shared_;
    job.q = qkv(tile.row) + h * width_;
    job.q8 = s.q8 + tile.row * s.attended_ld + h * width_;
    job.ldq = bits_ == 16 ? s.qkv_ld : s.attended_ld;
    job.q_scale = s.q_scale + one;
    job.q_sum = s.q_sum + one;
    return job;
  }

  void make_queries(size_t row, size_t h) {
    if (made_ == row * op_.kv_heads + h) return;
    made_ = row * op_.kv_heads + h;
    std::copy_n(qkv(row) + h * width_, width_, per_thread_.query);
    finish_queries(per_thread_.query, per_thread_.query_8, per_thread_.query_scale, per_thread_.query_sum, row, h);
  }

  // Runs `job`, which is set up for the tile, for those of its rows that see a token of the split. Results go to `to`,
  // row by row.
  void run_split(AttendJob job, const Tile& tile, size_t h, size_t split, const Partial& to, size_t ld_one,
                 size_t ld_acc) {
    const RowsOfSplit rows(split, job.position, op_.window, tile.rows);
    const uint8_t *blocks[kSplitBlocks] = {}, *ahead[kSplitBlocks] = {};
    const size_t first = first_seen(job.position + rows.from, op_.window);
    const size_t last = std::min(job.position + rows.to - 1, split * kKvChunk + kKvChunk - 1);
    for (size_t i = std::max(first, split * kKvChunk) / kKvBlock; i <= last / kKvBlock; ++i)
      blocks[i % kSplitBlocks] = kv_.block(op_.layer, table(tile.row)[i], h);
    job.blocks = blocks;
    job.ahead = ahead;
    const size_t next = (split + 1) * kSplitBlocks, end = position(tile.row + tile.rows - 1) / kKvBlock + 1;
    for (size_t i = 0; i < kSplitBlocks && next + i < end; ++i)
      ahead[i] = kv_.block(op_.layer, table(tile.row)[next + i], h);
    job.kv_split = split;
    job.position += rows.from;
    job.rows = rows.to - rows.from;
    job.q += rows.from * job.ldq;
    job.q8 += rows.from * job.ldq;
    job.q_scale += rows.from * job.lds;
    job.q_sum += rows.from * job.lds;
    job.m = to.m + rows.from * ld_one;
    job.l = to.l + rows.from * ld_one;
    job.acc = to.acc + rows.from * ld_acc;
    job.ldm = ld_one;
    job.lda = ld_acc;
    const KernelTable& k = step_.k;
    (bits_ == 4 ? k.attend_4 : bits_ == 8 ? k.attend_8 : k.attend_16)(&job);
  }

  void attend_whole(const Tile& tile, size_t h) {
    if (step_.apart) put(tile.row, h);
    AttendJob job = job_of(tile, h);
    job.fold = 1;
    for (size_t split = tile.first_split; split < tile.end_split; ++split)
      run_split(job, tile, h, split, result(tile.row, h), step_.s.heads_ld, step_.s.attended_ld);
    finish(tile, h);
  }

  void finish(const Tile& tile, size_t h) const {
    for (size_t row = tile.row; row < tile.row + tile.rows; ++row) {
      const Partial at = result(row, h);
      if (!op_.sinks.empty()) add_sinks(at, h);
      step_.k.attend_finish(at.acc, at.l, shared_, op_.head_dim);
      if (op_.gated) gate(row, h, at.acc);
      if (op_.out_scale != 1)
        for (size_t i = 0; i < width_; ++i) at.acc[i] *= op_.out_scale;
      if (takes_groups(*op_.o, width_)) produce(step_, *op_.o, row, h * width_, at.acc, width_);
    }
  }

  // l += exp(sink - m): a score more, which has no value.
  void add_sinks(const Partial& at, size_t h) const {
    for (size_t i = 0; i < shared_; ++i) {
      float weight = op_.sinks[h * shared_ + i] - at.m[i];
      step_.k.exp(&weight, &weight, 1);
      at.l[i] += weight;
    }
  }

  // Times the sigmoid of its gates, which are lost.
  void gate(size_t row, size_t h, float* acc) const {
    float* e = qkv(row) + op_.heads * op_.head_dim + h * width_;
    for (size_t i = 0; i < width_; ++i) e[i] = -e[i];
    step_.k.exp(e, e, width_);
    for (size_t i = 0; i < width_; ++i) acc[i] *= 1.0f / (1.0f + e[i]);
  }

  // Split number `i` of this wave of a split tile; `group` counts tiles times KV heads. Whoever is last merges.
  void attend_split(size_t wave, size_t group, size_t i) {
    const Tile& tile = per_thread_.tiles[group / op_.kv_heads];
    const size_t h = group % op_.kv_heads;
    const size_t from = tile.first_split + wave * wave_splits_, to = std::min(from + wave_splits_, tile.end_split);
    if (from + i >= to) return;
    if (step_.apart && from + i + 1 == tile.end_split) put(tile.row, h);
    run_split(job_of(tile, h), tile, h, from + i, part(group, i), shared_, width_);
    if (step_.s.arrived[group].fetch_add(1, std::memory_order_acq_rel) + 1 < to - from) return;
    step_.s.arrived[group].store(0, std::memory_order_relaxed);
    for (size_t split = from; split < to; ++split) merge(tile, h, split, part(group, split - from));
    if (to == tile.end_split) finish(tile, h);
  }

  void merge(const Tile& tile, size_t h, size_t split, const Partial& from) const {
    const RowsOfSplit rows(split, position(tile.row), op_.window, tile.rows);
    for (size_t i = rows.from; i < rows.to; ++i) {
      const Partial to = result(tile.row + i, h);
      const float *m = from.m + i * shared_, *l = from.l + i * shared_, *acc = from.acc + i * width_;
      if (first_seen(position(tile.row) + i, op_.window) < split * kKvChunk) {
        step_.k.attend_merge(to.m, to.l, to.acc, m, l, acc, shared_, op_.head_dim);
        continue;
      }
      std::copy_n(m, shared_, to.m);
      std::copy_n(l, shared_, to.l);
      std::copy_n(acc, width_, to.acc);
    }
  }

  const AttendOp& op_;
  const Step& step_;
  const KvCache& kv_;
  Lane& lane_;
  const Scratch::PerThread& per_thread_;
  const size_t shared_;            // query heads of one KV head
  const size_t width_;             // their values
  const size_t k_start_, v_start_;  // in a row of qkv; parts start on panel borders
  const size_t bits_;              // of the layer's cache
  const float score_scale_;        // a rotation of both sides multiplies their product by its length, a power of two
  size_t tiles_ = 0, split_tiles_ = 0;   // the threads share the KV splits of the first split_tiles_
  size_t most_rows_ = 0;           // of a split tile
  size_t waves_ = 0, wave_splits_ = 0;
  size_t made_ = SIZE_MAX;         // whose queries per_thread_ holds
};

// The same queries, keys and values attend from both of the probe's caches; the step goes on with what the wide one gave.
bool attend_from_both(const AttendOp& op, const Step& step, Lane& lane) {
  const Scratch& s = step.s;
  KvProbe& probe = *step.probe;
  const size_t width = op.heads * op.head_dim;
  const auto raw = [&](size_t row) { return probe.qkv.data() + row * s.qkv_ld; };
  const auto narrow = [&](size_t row) { return probe.attended.data() + row * s.attended_ld; };
  lane.share(step.rows, [&](size_t row) { std::copy_n(s.qkv + row * s.qkv_ld, s.qkv_ld, raw(row)); });
  if (!lane.sync()) return false;
  if (!Attention(op, step, probe.narrow, lane).run()) return false;
  lane.share(step.rows, [&](size_t row) {  // attention finishes heads in place
    std::copy_n(s.attended + row * s.attended_ld, width, narrow(row));
    std::copy_n(raw(row), s.qkv_ld, s.qkv + row * s.qkv_ld);
  });
  if (!lane.sync()) return false;
  if (!Attention(op, step, step.kv, lane).run()) return false;
  lane.share(step.rows, [&](size_t row) {
    const float *wide = s.attended + row * s.attended_ld, *other = narrow(row);
    double error = 0, all = 0;
    for (size_t i = 0; i < width; ++i) {
      const double value = wide[i], off = other[i] - value;
      error += off * off;
      all += value * value;
    }
    KvProbe::Row& sum = probe.rows[op.layer * probe.count + step.first + row];  // with all who read the layer's cache
    sum = {sum.error + error, sum.all + all};
  });
  return lane.sync();
}

}  // namespace

namespace {

// Bias and norm of all query heads at once, and of all key heads.
bool norm_all(const AttendOp& op, const Step& step, Lane& lane) {
  const KernelTable& k = step.k;
  const auto norm_part = [&](float* part, const Floats& norm, size_t bias_at) {
    if (!op.bias.empty()) k.add(part, part, op.bias.data() + bias_at, norm.size());
    k.rms_norm(part, part, norm.data(), norm.size(), op.norm.eps);
  };
  lane.phase("q, k norm");
  lane.share(step.rows, [&](size_t m) {
    float* row = step.s.qkv + m * step.s.qkv_ld;
    norm_part(row, op.q_norm, 0);
    norm_part(row + op.qkv->shape.panel_of(1, 0) * kPanelRows, op.k_norm, op.q_norm.size());
  });
  return lane.sync();
}

}  // namespace

bool run_attend(const AttendOp& op, const Step& step, Lane& lane) {
  const Scratch& s = step.s;
  Operand operand;
  if (!make_ready(&operand, step, lane, *op.qkv, {s.x, s.x_ld, op.norm.get()}, step.rows)) return false;
  lane.phase("q, k, v");
  share_panels(step, lane, *op.qkv, step.rows, [&](size_t p, size_t count) {
    run_panel(step, lane, *op.qkv, p, operand, step.rows, s.qkv + p * kPanelRows, s.qkv_ld, count);
  });
  if (!lane.sync()) return false;
  if (op.norms_all() && !norm_all(op, step, lane)) return false;
  if (!(step.probe != nullptr ? attend_from_both(op, step, lane) : Attention(op, step, step.kv, lane).run()))
    return false;
  if (takes_groups(*op.o, op.heads / op.kv_heads * op.head_dim))  // `finish` has quantized it
    operand = produced(step);
  else if (!make_ready(&operand, step, lane, *op.o, {s.attended, s.attended_ld}, step.rows))
    return false;
  return add_to_stream(step, lane, *op.o, operand, op.o_bias, op.post_norm, op.post_eps,
                       op.aside ? To::kAside : To::kStream);
}
