// The block that runs: its threads, its barrier, and what an error looks like.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "fibers.h"
#include "types.h"

namespace emu {

struct Copy {  // 16 bytes under way to shared memory
  uint4* to;
  uint4 bytes;
};
using Copies = std::vector<Copy>;

enum class State : uint8_t { ready, at_warp, at_block, over };

inline void run_thread();

struct Thread {
  Fiber fiber{run_thread};
  dim3 index;
  unsigned number = 0;  // in the block
  unsigned lane = 0;
  int line = 0;  // where it last met the emulator
  unsigned round = 0;  // of the warp's two exchanges
  State state = State::over;
  Copies open;                  // copies not yet committed
  std::vector<Copies> pending;  // committed groups, oldest first
};

enum class Op : uint8_t { sync_warp, shuffle, ballot, mma_s8, mma_f16, mma_bf16 };

// One collective of a warp: what each lane brought. There are two a warp, used in turn: no lane can come to the one
// after next before all have left this one.
struct Exchange {
  static constexpr size_t kSlot = 32;
  alignas(16) unsigned char slot[32][kSlot];
  uint32_t arrived = 0;
  uint32_t mask = 0;
  Op op = Op::sync_warp;
  int line = 0;
};

struct Warp {
  Exchange exchanges[2];
};

struct SharedArray {
  char* data;
  size_t bytes;
};

struct Block {
  dim3 index, threads, grid;
  std::vector<Thread*> thread;
  std::vector<Warp> warps;
  std::vector<SharedArray> shared;  // the static arrays met so far, and the dynamic one
  char* dynamic_shared = nullptr;
  const std::function<void()>* body = nullptr;
  Thread* current = nullptr;
  unsigned alive = 0;
  unsigned at_barrier = 0;
  int barrier_line = 0;
  unsigned barriers = 0;
  char start = 0, end = 0, barrier[2] = {};  // addresses that TSan orders by
};

inline Block* running = nullptr;  // one launch at a time in the process
inline uint64_t launches = 0;

inline Thread& thread() { return *running->current; }

// Calls of the emulator know the line of the kernel that they stand in.
#define LI_LINE int line = __builtin_LINE()

[[noreturn]] inline void fail(const std::string& what) {
  const Block& b = *running;
  std::fprintf(stderr, "EMU ERROR block(%u,%u,%u) ", b.index.x, b.index.y, b.index.z);
  if (b.current != nullptr) std::fprintf(stderr, "thread %u line %d: ", b.current->number, b.current->line);
  std::fprintf(stderr, "%s\n", what.c_str());
  std::fflush(stderr);
  std::_Exit(86);
}

[[noreturn]] inline void fail_at(int line, const std::string& what) {
  thread().line = line;
  fail(what);
}

inline void open_barrier() {
  for (Thread* t : running->thread) {
    if (t->state == State::at_block) t->state = State::ready;
  }
  running->at_barrier = 0;
  ++running->barriers;
}

inline void sync_block(int line) {
  Unseen unseen;
  Block& b = *running;
  Thread& self = thread();
  self.line = line;
  if (b.at_barrier != 0 && b.barrier_line != line) {
    fail("divergent sync_block: others wait in the one at line " + std::to_string(b.barrier_line));
  }
  b.barrier_line = line;
  // Two in turn, or a thread that is a barrier ahead would seem ordered before one that has yet to leave this barrier.
  char* order = &b.barrier[b.barriers & 1];
  publish(order);
  if (++b.at_barrier == b.alive) {
    open_barrier();
  } else {
    self.state = State::at_block;
    self.fiber.suspend();
  }
  observe(order);
}

// Returns the fiber, which has nothing of the block to look at once it is over.
inline Fiber& finish_thread() {
  Unseen unseen;
  Block& b = *running;
  Thread& self = thread();
  if (!self.open.empty()) fail("the thread ends with copies that it did not commit");
  for (const Copies& group : self.pending) {
    if (!group.empty()) fail("the thread ends with copies that it did not wait for");
  }
  publish(&b.end);
  self.pending.clear();
  self.state = State::over;
  if (--b.alive != 0 && b.at_barrier == b.alive) open_barrier();  // a thread that is over counts no more
  return self.fiber;
}

// What a fiber does: one thread of every block, block after block.
LI_UNCHECKED inline void run_thread() {
  for (;;) {
    observe(&running->start);
    (*running->body)();
    finish_thread().suspend();
  }
}

}  // namespace emu
