// Threads that stay: they are started once, and between jobs they wait without burning a core for long.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

// A word that threads wait on, alone on its cache line.
struct alignas(64) WaitWord {
  std::atomic<uint32_t> value{0};
};

class Pool {
 public:
  explicit Pool(size_t threads);  // `threads` counts the calling one, so 1 starts nothing
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  size_t threads() const { return threads_; }

  // Calls job(id) once for each id below threads(), id 0 on the calling thread; returns when all have returned.
  // One caller at a time. The job must not throw.
  void run(const std::function<void(size_t)>& job);

  // Inside a job: returns when all threads have called it. What they wrote before is seen by all after.
  void barrier();

 private:
  void start();
  void stop();
  void work(size_t id);

  const size_t threads_;
  WaitWord go_;       // counts jobs
  WaitWord arrived_;  // threads that reached the barrier
  WaitWord turn_;     // counts barriers
  const std::function<void(size_t)>* job_ = nullptr;
  bool quit_ = false;
  int process_ = 0;  // threads do not survive a fork: a child starts its own
  std::vector<std::thread>* workers_ = nullptr;
};

// Calls f(i) for each i < n, on up to `threads` threads that live for this call only. f must not throw.
void parallel_for(size_t n, size_t threads, const std::function<void(size_t)>& f);
