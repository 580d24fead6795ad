#include "core/pool.h"

#include <unistd.h>

#include <algorithm>
#include <system_error>

namespace {

void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory");
#endif
}

// How long to wait before the next, kinder way of waiting. Inside a step the others are about to arrive; between
// steps there is sampling and Python, a fraction of a millisecond.
struct Patience {
  int spins;
  int yields;
};
constexpr Patience kAtBarrier{600, 400};
constexpr Patience kBetweenJobs{600, 1500};

// Returns when `word` is no longer `old`. Spinning is fastest when every thread has a core; when one is taken away,
// only yielding and then sleeping lets it come back.
void wait_while(const std::atomic<uint32_t>& word, uint32_t old, Patience patience) {
  for (int i = 0; i < patience.spins; ++i) {
    if (word.load(std::memory_order_acquire) != old) return;
    pause_briefly();
  }
  for (int i = 0; i < patience.yields; ++i) {
    if (word.load(std::memory_order_acquire) != old) return;
    std::this_thread::yield();
  }
  while (word.load(std::memory_order_acquire) == old) word.wait(old, std::memory_order_acquire);
}

// Sequentially consistent on purpose: a sleeper announces itself, then reads the word; the waker must do the two in
// the other order, or a wake-up is lost.
void advance(std::atomic<uint32_t>& word, uint32_t value) {
  word.store(value, std::memory_order_seq_cst);
  word.notify_all();
}

}  // namespace

Pool::Pool(size_t threads) : threads_(std::max<size_t>(threads, 1)) { start(); }

Pool::~Pool() {
  if (process_ != getpid()) return;  // a forked child that never ran: the threads, and what they use, are the parent's
  stop();
}

void Pool::start() {
  process_ = getpid();
  go_.value = 0;
  arrived_.value = 0;
  turn_.value = 0;
  workers_ = new std::vector<std::thread>();
  workers_->reserve(threads_ - 1);
  try {
    for (size_t id = 1; id < threads_; ++id) workers_->emplace_back([this, id] { work(id); });
  } catch (...) {  // the system has no more threads: the ones that run must not outlive this object
    stop();
    throw;
  }
}

void Pool::stop() {
  quit_ = true;
  advance(go_.value, go_.value.load(std::memory_order_relaxed) + 1);
  for (std::thread& worker : *workers_) worker.join();
  delete workers_;
}

void Pool::work(size_t id) {
  for (uint32_t seen = 0;; ++seen) {
    wait_while(go_.value, seen, kBetweenJobs);
    if (quit_) return;
    (*job_)(id);
    barrier();
  }
}

void Pool::run(const std::function<void(size_t)>& job) {
  if (threads_ == 1) return job(0);
  if (process_ != getpid()) start();  // the old handles are left alone: they name threads of another process
  job_ = &job;
  advance(go_.value, go_.value.load(std::memory_order_relaxed) + 1);
  job(0);
  barrier();
}

void Pool::barrier() {
  if (threads_ == 1) return;
  const uint32_t turn = turn_.value.load(std::memory_order_relaxed);
  if (arrived_.value.fetch_add(1, std::memory_order_acq_rel) + 1 < threads_)
    return wait_while(turn_.value, turn, kAtBarrier);
  arrived_.value.store(0, std::memory_order_relaxed);
  advance(turn_.value, turn + 1);
}

void parallel_for(size_t n, size_t threads, const std::function<void(size_t)>& f) {
  std::atomic<size_t> next{0};
  const auto take = [&] {
    for (size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < n;) f(i);
  };
  std::vector<std::thread> helpers;
  try {
    for (size_t i = 1; i < std::min(n, threads); ++i) helpers.emplace_back(take);
  } catch (const std::system_error&) {
    // No more threads to be had: those that run do all of it.
  }
  take();
  for (std::thread& helper : helpers) helper.join();
}
