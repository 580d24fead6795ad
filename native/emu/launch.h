// Runs a grid: one block after another, the threads of a block in an order that the schedule gives.
#pragma once
#include <algorithm>
#include <deque>
#include <mutex>
#include <numeric>

#include "memory.h"
#include "warp.h"

namespace emu {

inline constexpr unsigned kMaxThreads = 1024;
inline constexpr uint32_t kForward = 0, kReverse = 1;  // above: the seed of a random schedule

inline std::mutex launch_lock;

// Threads stay from launch to launch: their stacks are not made again.
inline Thread* keep_thread(unsigned number) {
  static std::deque<Thread> threads;
  while (threads.size() <= number) threads.emplace_back();
  return &threads[number];
}

// Which threads run first. A warp that can go on does so before another has its turn: what a missing barrier allows
// then happens. A random schedule sometimes breaks off, and shuffles warps and lanes each time.
class Schedule {
 public:
  Schedule(unsigned warps, uint32_t kind) : warps_(warps), lanes_(32), kind_(kind), seed_(kind * 2654435761u + 1) {
    std::iota(warps_.begin(), warps_.end(), 0u);
    std::iota(lanes_.begin(), lanes_.end(), 0u);
    if (kind != kReverse) return;
    std::reverse(warps_.begin(), warps_.end());
    std::reverse(lanes_.begin(), lanes_.end());
  }

  unsigned block(unsigned i, unsigned blocks) const { return kind_ == kReverse ? blocks - 1 - i : i; }
  const std::vector<unsigned>& warps() { return shuffled(warps_); }
  const std::vector<unsigned>& lanes() { return shuffled(lanes_); }
  bool warp_goes_on() { return kind_ <= kReverse || random() % 4 != 0; }

 private:
  const std::vector<unsigned>& shuffled(std::vector<unsigned>& order) {
    if (kind_ > kReverse) {
      for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
    }
    return order;
  }
  uint32_t random() {
    seed_ ^= seed_ << 13;
    seed_ ^= seed_ >> 17;
    seed_ ^= seed_ << 5;
    return seed_;
  }

  std::vector<unsigned> warps_, lanes_;
  uint32_t kind_;
  uint32_t seed_;
};

inline void start_block(Block& b, unsigned number) {
  b.index = dim3(number % b.grid.x, number / b.grid.x % b.grid.y, number / b.grid.x / b.grid.y);
  b.alive = unsigned(b.thread.size());
  b.at_barrier = 0;
  for (Warp& warp : b.warps) warp.exchanges[0].arrived = warp.exchanges[1].arrived = 0;
  for (const SharedArray& array : b.shared) std::memset(array.data, kPoison, array.bytes);
  for (unsigned i = 0; i < b.thread.size(); ++i) {
    Thread& t = *b.thread[i];
    t.number = i;
    t.lane = i % 32;
    t.index = dim3(i % b.threads.x, i / b.threads.x % b.threads.y, i / b.threads.x / b.threads.y);
    t.line = 0;
    t.round = 0;
    t.state = State::ready;
  }
  publish(&b.start);
}

[[noreturn]] inline void report_deadlock(Block& b) {
  constexpr int kNamed = 8;
  std::string what = "DEADLOCK:";
  int waiting = 0;
  b.current = nullptr;
  for (Thread* t : b.thread) {
    if (t->state == State::over) continue;
    if (b.current == nullptr) b.current = t;
    if (++waiting > kNamed) continue;
    what += " thread " + std::to_string(t->number) + " waits ";
    what += t->state == State::at_warp ? "for its warp" : "in sync_block";
    what += " at line " + std::to_string(t->line) + ";";
  }
  if (waiting > kNamed) what += " and " + std::to_string(waiting - kNamed) + " more wait;";
  what += " " + std::to_string(b.thread.size() - size_t(waiting)) + " are over";
  fail(what);
}

// One turn of those lanes that can go on; whether there were any.
inline bool run_warp(Block& b, unsigned warp, Schedule& schedule) {
  bool moved = false;
  for (const unsigned lane : schedule.lanes()) {
    const unsigned i = 32 * warp + lane;
    if (i >= b.thread.size() || b.thread[i]->state != State::ready) continue;
    moved = true;
    b.current = b.thread[i];
    b.current->fiber.resume();
  }
  return moved;
}

inline void run_block(Block& b, Schedule& schedule) {
  while (b.alive != 0) {
    bool moved = false;
    for (const unsigned warp : schedule.warps()) {
      while (run_warp(b, warp, schedule)) {
        moved = true;
        if (!schedule.warp_goes_on()) break;
      }
    }
    if (!moved) report_deadlock(b);
  }
  b.current = nullptr;
  observe(&b.end);
}

inline unsigned check_threads(dim3 threads) {
  const uint64_t count = uint64_t(threads.x) * threads.y * threads.z;
  if (count == 0 || count > kMaxThreads) fail(std::to_string(count) + " threads a block; there can be 1 to 1024");
  return unsigned(count);
}

inline void launch(dim3 grid, dim3 threads, size_t dynamic_bytes, const std::function<void()>& body,
                   uint32_t schedule_kind = kForward) {
  const std::lock_guard lock(launch_lock);
  Unseen unseen;
  Block b;
  running = &b;
  ++launches;
  b.threads = threads;
  b.grid = grid;
  b.body = &body;
  const unsigned count = check_threads(threads), blocks = grid.x * grid.y * grid.z;
  for (unsigned i = 0; i < count; ++i) b.thread.push_back(keep_thread(i));
  b.warps.resize((count + 31) / 32);
  if (dynamic_bytes != 0) b.dynamic_shared = add_shared(dynamic_bytes);
  Schedule schedule(unsigned(b.warps.size()), schedule_kind);
  for (unsigned i = 0; i < blocks; ++i) {
    start_block(b, schedule.block(i, blocks));
    run_block(b, schedule);
  }
  for (const SharedArray& array : b.shared) std::free(array.data);
  running = nullptr;
}

}  // namespace emu
