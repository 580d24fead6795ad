// The threads: jobs of every kind, pools that grow and shrink, programs that share nothing.
#include "core/pool.h"

#include <numeric>

#include "bits.h"

namespace {

// Plain numbers, written by one thread and read by another: what orders them is the pool alone.
void pass_numbers(Pool& pool) {
  std::vector<size_t> numbers(pool.threads() * 8);
  for (size_t turn = 0; turn < 50; ++turn) {
    pool.each([&](size_t id) { numbers[id * 8] += turn; });
    const size_t sum = std::accumulate(numbers.begin(), numbers.end(), size_t{0});
    expect(sum == pool.threads() * turn * (turn + 1) / 2, "any", "Pool::each");
  }
}

// Those that help leave early and come back.
void help_often(Pool& pool) {
  std::atomic<size_t> left{200};
  std::vector<size_t> done(200);
  pool.help([&](size_t) {
    for (size_t taken = 0; taken < 3; ++taken) {
      const size_t seen = left.load();
      if (seen == 0) return false;
      size_t expected = seen;
      if (left.compare_exchange_strong(expected, seen - 1)) done[seen - 1] += 1;
    }
    return true;
  });
  for (const size_t times : done) expect(times == 1, "any", "Pool::help");
}

}  // namespace

void exercise_pool() {
  Pool pool(3);
  for (const size_t threads : {3u, 1u, 4u, 2u}) {
    pool.resize(threads);
    pass_numbers(pool);
    help_often(pool);
  }
  std::vector<size_t> squares(100);
  parallel_for(squares.size(), 3, [&](size_t i) { squares[i] = i * i; });
  for (size_t i = 0; i < squares.size(); ++i) expect(squares[i] == i * i, "any", "parallel_for");
}
