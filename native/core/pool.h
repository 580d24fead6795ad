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
  // Returns when the value has left `old` behind; the caller sees what was written before. Spins, then yields
  // `yields` times, then sleeps.
  void wait_past(uint32_t old, int yields);
  void set(uint32_t to);
};

class Pool {
 public:
  // Called as job(id) with id below threads(). True: it left early, to give its core up; call it again.
  using Job = std::function<bool(size_t)>;

  explicit Pool(size_t threads);  // `threads` counts the calling one, so 1 starts nothing
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  size_t threads() const { return threads_; }

  // From now on so many threads. Not while a job runs. Throws std::system_error when the system has no more threads;
  // the calling one is then alone.
  void resize(size_t threads);

  // Calls job(0) on the calling thread and offers the others to help: those that get a core meanwhile call the job with
  // their id, once or, when they leave early, more often. Returns when job(0) has returned and no one is inside.
  // One caller at a time. The job must not throw.
  void help(const Job& job);

  // Calls job(id) once for each id below threads(), id 0 on the calling thread; returns when all have returned.
  void each(const std::function<void(size_t)>& job);

 private:
  void start();
  void stop();
  void work(size_t id);
  void open(const Job& job);
  void close();
  bool enter(uint32_t finished, uint32_t* epoch);
  void leave();

  size_t threads_;
  WaitWord go_;  // counts jobs
  // epoch << 32 | open << 31 | threads inside. One word, so that no one enters a job that is over.
  struct alignas(64) Door {
    std::atomic<uint64_t> state{0};
  } door_;
  WaitWord left_;  // counts the threads that left while the door was closed
  const Job* job_ = nullptr;
  std::atomic<bool> quit_{false};
  int process_ = 0;  // threads do not survive a fork: a child starts its own
  std::vector<std::thread>* workers_ = nullptr;
};

// Calls f(i) for each i < n, on up to `threads` threads that live for this call only. f must not throw.
void parallel_for(size_t n, size_t threads, const std::function<void(size_t)>& f);
