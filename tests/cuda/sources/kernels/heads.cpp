// norm_all, and rope_append: heads made ready, keys and values put into the cache.
#include "cache.h"

using namespace check;

namespace {

struct RopeCase {
  size_t heads, kv_heads, head_dim, bits;
  bool bias, q_norm, k_norm;
  size_t half = 0, query_half = 0;  // pairs that are turned; 0: all
  bool norm_after = false;
  bool v_norm = false, same = false;  // values are normed; they are the keys before these are
};

// What the kernel changes.
struct State {
  Array<float> qkv;
  Array<int8_t> q8;
  Array<float> q_scale;
  Cache cache;
};

const std::vector<std::pair<size_t, size_t>> kAt = {{1, 30}, {1, 31}, {1, 32}, {1, 33},
                                                    {0, 0},  {2, 64}, {3, 5},  {3, 6}};

struct Rope {
  RopeCase c;
  Places at{kAt};
  Random random{11};
  size_t all = c.heads + 2 * c.kv_heads, v_bias = c.heads + (c.same ? 0 : c.kv_heads), k_start = round_to(c.heads * c.head_dim, 32),
         v_start = k_start + round_to(c.kv_heads * c.head_dim, 32), qkv_ld = v_start + c.kv_heads * c.head_dim + 9;
  float score_scale = 0.0884f;
  size_t half = c.half != 0 ? c.half : c.head_dim / 2, query_half = c.query_half != 0 ? c.query_half : half;
  Array<float> qkv, bias, q_norm, k_norm, v_norm, table, query_table;

  explicit Rope(const RopeCase& given)
      : c(given),
        qkv(reach(at.rows(), qkv_ld, v_start + c.kv_heads * c.head_dim)),
        bias(numbers(c.bias ? all * c.head_dim : 0, random)),
        q_norm(numbers(c.q_norm ? c.head_dim : 0, random)),
        k_norm(numbers(c.k_norm ? c.head_dim : 0, random)),
        v_norm(numbers(c.v_norm ? c.head_dim : 0, random)),
        table(65 * 2 * half),
        query_table(65 * 2 * query_half) {
    for (size_t row = 0; row < at.rows(); ++row) fill_row(row);
  }

  // Each head has its sort of numbers. The first row is not turned, so that what is halfway stays halfway.
  void fill_row(size_t row) {
    const float most = c.bits == 4 ? 7.0f : c.bits == 8 ? 127.0f : 4094.0f;
    for (size_t i = 0; i < all; ++i) {
      const size_t start = i < c.heads ? i * c.head_dim
                           : i < c.heads + c.kv_heads ? k_start + (i - c.heads) * c.head_dim
                                                      : v_start + (i - c.heads - c.kv_heads) * c.head_dim;
      const Sort sort = row == 0 ? Sort::halfway : kSorts[(i + row) % std::size(kSorts)];
      fill(qkv.data() + row * qkv_ld + start, c.head_dim, random, sort, i < c.heads ? 127.0f : most);
    }
    const auto fill_table = [&](Array<float>& to, size_t pairs) {
      for (size_t d = 0; d < 2 * pairs; ++d)
        to[at.position(row) * 2 * pairs + d] = row > 0 ? random.even(-1, 1) : d < pairs ? 1.0f : 0.0f;
    };
    fill_table(table, half);
    fill_table(query_table, query_half);
  }

  // Bias, norm and RoPE of head `index` of q | k.
  void finish(float* head, size_t index, size_t row) const {
    const Array<float>& norm = index < c.heads ? q_norm : k_norm;
    const size_t pairs = index < c.heads ? query_half : half;
    const float* cos = (index < c.heads ? query_table : table).data() + at.position(row) * 2 * pairs;
    if (c.bias) scalar::add(head, head, bias.data() + index * c.head_dim, c.head_dim);
    const auto norm_head = [&] {
      if (norm.size() != 0) scalar::rms_norm(head, head, norm.data(), c.head_dim, 1e-6f);
    };
    if (!c.norm_after) norm_head();
    scalar::rope(head, cos, cos + pairs, 2 * pairs);
    if (c.norm_after) norm_head();
  }

  void expected_query(const State& to, size_t row, size_t h) const {
    float* from = to.qkv.data() + row * qkv_ld + h * c.head_dim;
    std::vector<float> head(from, from + c.head_dim);
    finish(head.data(), h, row);
    if (c.bits == 16) {
      std::copy_n(head.data(), c.head_dim, from);
      return;
    }
    if (c.bits != 16) scalar::rotate(head.data(), c.head_dim);
    float& scale = to.q_scale[row * c.heads + h];
    int sum = 0;
    int8_t* q8 = to.q8.data() + (row * c.heads + h) * c.head_dim;
    scalar::quantize(q8, &scale, &sum, head.data(), c.head_dim, c.head_dim);
    scale *= score_scale;
  }

  void expected_key_and_value(const State& to, size_t row, size_t h) const {
    const float* k = qkv.data() + row * qkv_ld + k_start + h * c.head_dim;
    const float* v = qkv.data() + row * qkv_ld + (c.same ? k_start : v_start) + h * c.head_dim;
    std::vector<float> key(k, k + c.head_dim), value(v, v + c.head_dim);
    finish(key.data(), c.heads + h, row);
    if (c.bits != 16) scalar::rotate(key.data(), c.head_dim);
    if (c.bias)
      scalar::add(value.data(), value.data(), bias.data() + (v_bias + h) * c.head_dim, c.head_dim);
    if (c.v_norm) scalar::rms_norm(value.data(), value.data(), v_norm.data(), c.head_dim, 1e-6f);
    const size_t position = at.position(row);
    to.cache.put(at.block_of(row, position), h, position % 32, key.data(), value.data());
  }

  li::RopeArgs args(const State& to) const {
    const auto maybe = [](const Array<float>& array) { return array.size() != 0 ? array.data() : nullptr; };
    li::RopeArgs a{};
    a.qkv = to.qkv.data();
    a.qkv_ld = as_int(qkv_ld);
    a.k_start = as_int(k_start);
    a.v_start = as_int(c.same ? k_start : v_start);
    a.v_bias = as_int(v_bias);
    a.v_norm = maybe(v_norm);
    a.bias = maybe(bias);
    a.q_norm = maybe(q_norm);
    a.k_norm = maybe(k_norm);
    a.eps = 1e-6f;
    a.norm_after = c.norm_after;
    a.table = table.data();
    a.query_table = query_table.data();
    a.half = as_int(half);
    a.query_half = as_int(query_half);
    a.heads = as_int(c.heads);
    a.kv_heads = as_int(c.kv_heads);
    a.head_dim = as_int(c.head_dim);
    a.score_scale = score_scale;
    a.kv = to.cache.args();
    a.at = at.args();
    a.q8 = c.bits != 16 ? to.q8.data() : nullptr;
    a.q_scale = c.bits != 16 ? to.q_scale.data() : nullptr;
    return a;
  }

  void run() const {
    const size_t queries = c.bits != 16 ? at.rows() * c.heads : 0;
    const auto fresh = [&] {
      return State{qkv, results<int8_t>(queries * c.head_dim), results<float>(queries),
                   Cache({c.kv_heads, c.head_dim, c.bits}, at.blocks, Array<int>::kUntouched)};
    };
    const State expected = fresh();
    for (size_t row = 0; row < at.rows(); ++row) {
      for (size_t h = 0; h < c.heads; ++h) expected_query(expected, row, h);
      for (size_t h = 0; h < c.kv_heads; ++h) expected_key_and_value(expected, row, h);
    }
    under_each_schedule(
        fresh, dim3(grid_of(c.heads + c.kv_heads, 4), static_cast<unsigned>(at.rows())), 128, 0,
        [&](const State& to) { rope_append(args(to)); },
        [&](const State& to) {
          expect("qkv", to.qkv, expected.qkv);
          expect("q8", to.q8, expected.q8);
          expect("q_scale", to.q_scale, expected.q_scale);
          expect_cache(to.cache, expected.cache);
        });
  }
};

void check_norm_all(size_t q, size_t k, bool biased) {
  name_case("norm_all of %zu and %zu columns%s", q, k, biased ? ", bias" : "");
  Random random(5);
  const size_t rows = std::size(kSorts), k_start = round_to(q, 32), ld = k_start + k + 9;
  const Array<float> qkv = results<float>(reach(rows, ld, k_start + k));
  const Array<float> bias = numbers(biased ? q + k : 0, random), q_norm = numbers(q, random), k_norm = numbers(k, random);
  for (size_t m = 0; m < rows; ++m)
    for (const size_t at : {size_t{0}, k_start}) fill(qkv.data() + m * ld + at, at == 0 ? q : k, random, kSorts[m]);
  const Array<float> expected = qkv;
  for (size_t m = 0; m < rows; ++m) {
    float *queries = expected.data() + m * ld, *keys = queries + k_start;
    if (biased) scalar::add(queries, queries, bias.data(), q);
    if (biased) scalar::add(keys, keys, bias.data() + q, k);
    scalar::rms_norm(queries, queries, q_norm.data(), q, 1e-6f);
    scalar::rms_norm(keys, keys, k_norm.data(), k, 1e-6f);
  }
  under_each_schedule(
      [&] { return qkv; }, dim3(2, static_cast<unsigned>(rows)), 256, 0,
      [&](const Array<float>& to) {
        norm_all({to.data(), as_int(ld), as_int(q), as_int(k_start), as_int(k), biased ? bias.data() : nullptr,
                  q_norm.data(), k_norm.data(), 1e-6f});
      },
      [&](const Array<float>& to) { expect("qkv", to, expected); });
}

void check_all() {
  const RopeCase cases[] = {{4, 2, 64, 8, false, false, false}, {3, 1, 80, 8, true, true, false},
                            {4, 4, 32, 8, true, false, true},   {2, 1, 128, 8, false, true, true},
                            {4, 2, 64, 4, false, false, false}, {3, 1, 96, 4, true, true, true},
                            {5, 5, 32, 4, false, true, false},  {2, 1, 128, 4, true, false, false},
                            {4, 2, 64, 16, false, false, false}, {3, 1, 96, 16, true, true, true},
                            {2, 2, 80, 16, true, false, true},  {2, 1, 512, 4, true, true, true},
                            {2, 1, 16, 8, true, true, true},    {3, 1, 96, 4, true, true, true, 36},
                            {4, 2, 64, 16, false, true, true, 16, 0, true}, {4, 2, 64, 8, true, true, true, 8, 32, true},
                            {4, 2, 64, 8, false, true, true, 0, 0, false, true}, {3, 1, 96, 4, true, true, true, 0, 0, false, true, true},
                            {2, 2, 80, 16, true, false, true, 0, 0, false, true, true}};
  for (const RopeCase& c : cases) {
    name_case("rope_append of %zu and %zu heads of %zu, %zu bits%s%s%s%s%s%s%s", c.heads, c.kv_heads, c.head_dim, c.bits,
              c.bias ? ", bias" : "", c.q_norm ? ", q norm" : "", c.k_norm ? ", k norm" : "",
              c.half != 0 ? ", in part" : "", c.norm_after ? ", normed after" : "", c.v_norm ? ", v norm" : "",
              c.same ? ", keys are values" : "");
    Rope(c).run();
  }
  for (const bool bias : {false, true}) {
    check_norm_all(128, 64, bias);
    check_norm_all(640, 80, bias);
  }
}

}  // namespace

int main(int count, char** arguments) { return finish(count, arguments, check_all); }
