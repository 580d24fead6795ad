#include "core/pool.h"

#include <unistd.h>

#include <algorithm>
#include <system_error>

namespace {

constexpr uint64_t kOpen = uint64_t{1} << 31;
constexpr uint64_t kInside = kOpen - 1;
constexpr int kSpins = 600;
// Between steps there is sampling and Python, a fraction of a millisecond.
constexpr int kYieldsBetweenJobs = 1500;
constexpr int kYieldsAtTheDoor = 400;

void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory");
#endif
}

// The number of the job that may be entered or was last.
uint32_t epoch_of(uint64_t state) { return static_cast<uint32_t>(state >> 32); }

}  // namespace

// Spinning is fastest when every thread has a core; when one is taken away, only yielding and then sleeping lets it
// come back.
void WaitWord::wait_past(uint32_t old, int yields) {
  const auto passed = [&] { return value.load(std::memory_order_acquire) != old; };
  for (int i = 0; i < kSpins; ++i) {
    if (passed()) return;
    pause_briefly();
  }
  for (int i = 0; i < yields; ++i) {
    if (passed()) return;
    std::this_thread::yield();
  }
  while (!passed()) value.wait(old, std::memory_order_acquire);
}

// Sequentially consistent on purpose: a sleeper announces itself, then reads the word; the waker must do the two in
// the other order, or a wake-up is lost.
void WaitWord::set(uint32_t to) {
  value.store(to, std::memory_order_seq_cst);
  value.notify_all();
}

Pool::Pool(size_t threads) : threads_(std::max<size_t>(threads, 1)) { start(); }

Pool::~Pool() {
  if (process_ != getpid()) return;  // a forked child that never ran: the threads, and what they use, are the parent's
  stop();
}

void Pool::resize(size_t threads) {
  if (process_ == getpid()) stop();
  quit_ = false;
  threads_ = std::max<size_t>(threads, 1);
  try {
    start();
  } catch (...) {
    threads_ = 1;
    quit_ = false;
    start();
    throw;
  }
}

void Pool::start() {
  process_ = getpid();
  go_.value = 0;
  left_.value = 0;
  door_.state = 0;
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
  go_.set(go_.value.load(std::memory_order_relaxed) + 1);
  for (std::thread& worker : *workers_) worker.join();
  delete workers_;
}

void Pool::work(size_t id) {
  for (uint32_t seen = 0, finished = 0;;) {
    go_.wait_past(seen, kYieldsBetweenJobs);
    if (quit_) return;
    seen = go_.value.load(std::memory_order_acquire);
    // What is entered is job `seen` or the next, whose number go_ does not show yet.
    uint32_t epoch = 0;
    for (bool again = true; again && enter(finished, &epoch);) {
      again = (*job_)(id);
      leave();
      if (again)
        std::this_thread::yield();
      else
        finished = epoch;
    }
  }
}

bool Pool::enter(uint32_t finished, uint32_t* epoch) {
  uint64_t state = door_.state.load(std::memory_order_relaxed);
  do {
    if ((state & kOpen) == 0 || epoch_of(state) == finished) return false;
  } while (!door_.state.compare_exchange_weak(state, state + 1, std::memory_order_acquire, std::memory_order_relaxed));
  *epoch = epoch_of(state);
  return true;
}

void Pool::leave() {
  const uint64_t state = door_.state.fetch_sub(1, std::memory_order_acq_rel) - 1;
  if ((state & (kOpen | kInside)) == 0) left_.set(epoch_of(state));
}

void Pool::open(const Job& job) {
  job_ = &job;
  const uint32_t epoch = go_.value.load(std::memory_order_relaxed) + 1;
  door_.state.store(uint64_t{epoch} << 32 | kOpen, std::memory_order_release);
  go_.set(epoch);
}

void Pool::close() {
  const uint64_t state = door_.state.fetch_and(~kOpen, std::memory_order_acq_rel);
  if ((state & kInside) == 0) return;
  const uint32_t epoch = epoch_of(state);
  for (uint32_t seen; (seen = left_.value.load(std::memory_order_acquire)) != epoch;)
    left_.wait_past(seen, kYieldsAtTheDoor);
}

void Pool::help(const Job& job) {
  const bool alone = threads_ == 1;
  if (!alone && process_ != getpid()) start();  // the old handles are left alone: they name another process's threads
  if (!alone) open(job);
  while (job(0)) std::this_thread::yield();
  if (!alone) close();
}

void Pool::each(const std::function<void(size_t)>& job) {
  std::atomic<size_t> returned{0};
  help([&](size_t id) {
    job(id);
    returned.fetch_add(1, std::memory_order_acq_rel);
    while (id == 0 && returned.load(std::memory_order_acquire) < threads_) std::this_thread::yield();
    return false;
  });
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
