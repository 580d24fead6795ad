// What the lanes of a warp do together. All of it goes through one exchange, which checks that the lanes agree.
#pragma once
#include "block.h"

namespace emu {

inline constexpr uint32_t kFullWarp = 0xffffffffu;

inline void check_arrival(const Exchange& e, uint32_t mask, Op op, int line) {
  if ((mask >> thread().lane & 1) == 0) fail("the calling lane is not in its own mask");
  if (e.arrived == 0 || (e.mask == mask && e.op == op && e.line == line)) return;
  fail("warp collective mismatch: others wait in the one at line " + std::to_string(e.line) +
       " (mask, operation and line must agree)");
}

inline void open_exchange(Exchange& e) {
  const unsigned first = thread().number - thread().lane;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if ((e.arrived >> lane & 1) == 0) continue;
    Thread& other = *running->thread[first + lane];
    if (other.state == State::at_warp) other.state = State::ready;
  }
  e.arrived = 0;
}

// Hands in `bytes` bytes and waits for all lanes of the mask; then their slots can be read, until the next exchange.
// Only sync_warp orders memory; a shuffle, as on the device, orders nothing but what it carries.
inline Exchange& exchange(uint32_t mask, Op op, int line, const void* value, size_t bytes) {
  Unseen unseen;
  Thread& self = thread();
  self.line = line;
  self.round ^= 1;
  Exchange& e = running->warps[self.number / 32].exchanges[self.round];
  check_arrival(e, mask, op, line);
  if (e.arrived == 0) {
    e.mask = mask;
    e.op = op;
    e.line = line;
  }
  std::memcpy(e.slot[self.lane], value, bytes);
  e.arrived |= 1u << self.lane;
  if (op == Op::sync_warp) publish(&e);
  if (e.arrived == mask) {
    open_exchange(e);
  } else {
    self.state = State::at_warp;
    self.fiber.suspend();
  }
  if (op == Op::sync_warp) observe(&e);
  return e;
}

inline void sync_warp(int line, uint32_t mask = kFullWarp) {
  const char nothing = 0;
  exchange(mask, Op::sync_warp, line, &nothing, sizeof nothing);
}

template <class T>
T shuffle(T value, unsigned source, int line, uint32_t mask = kFullWarp) {
  static_assert(sizeof(T) == 4, "a shuffle moves 4 bytes");
  Unseen unseen;
  const Exchange& e = exchange(mask, Op::shuffle, line, &value, sizeof value);
  if (source >= 32 || (mask >> source & 1) == 0) {
    fail("the shuffle reads lane " + std::to_string(source) + ", which is not in the mask");
  }
  std::memcpy(&value, e.slot[source], sizeof value);
  return value;
}

inline unsigned ballot(bool predicate, int line, uint32_t mask = kFullWarp) {
  Unseen unseen;
  const unsigned char mine = predicate;
  const Exchange& e = exchange(mask, Op::ballot, line, &mine, sizeof mine);
  unsigned votes = 0;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (mask >> lane & 1) votes |= unsigned(e.slot[lane][0]) << lane;
  }
  return votes;
}

// The fragments of the three products below, as PTX lays them out, in registers of 4 bytes (four s8 or two 16 bit):
// row r of A, word w of its 8: lane 4*(r % 8) + w % 4, register r / 8 + 2 * (w / 4);
// column c of B, word w of its 8: lane 4*c + w % 4, register w / 4;
// element i of D in lane l: row l / 4 + 8 * (i / 2), column 2 * (l % 4) + i % 2.
struct Fragments {
  const Exchange& e;

  unsigned a(unsigned row, unsigned word) const { return at(4 * (row % 8) + word % 4, row / 8 + 2 * (word / 4)); }
  unsigned b(unsigned column, unsigned word) const { return at(4 * column + word % 4, 4 + word / 4); }

 private:
  unsigned at(unsigned lane, unsigned index) const {
    unsigned word;
    std::memcpy(&word, e.slot[lane] + 4 * index, sizeof word);
    return word;
  }
};

inline Fragments exchange_fragments(Op op, int line, const unsigned (&a)[4], const unsigned (&b)[2]) {
  const unsigned mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
  return {exchange(kFullWarp, op, line, mine, sizeof mine)};
}

inline unsigned row_of(unsigned element) { return thread().lane / 4 + 8 * (element / 2); }
inline unsigned column_of(unsigned element) { return 2 * (thread().lane % 4) + element % 2; }

inline void mma_s8(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], int line) {
  Unseen unseen;
  const Fragments from = exchange_fragments(Op::mma_s8, line, a, b);
  for (unsigned i = 0; i < 4; ++i) {
    for (unsigned word = 0; word < 8; ++word) {
      d[i] = dp4a(int(from.a(row_of(i), word)), int(from.b(column_of(i), word)), d[i]);
    }
  }
}

// Summed in double and rounded once: tensor cores keep fewer bits, so a kernel may not count on these.
template <float (*Widen)(uint16_t)>
void mma_16_bit(Op op, float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], int line) {
  Unseen unseen;
  const Fragments from = exchange_fragments(op, line, a, b);
  for (unsigned i = 0; i < 4; ++i) {
    double sum = d[i];
    for (unsigned word = 0; word < 8; ++word) {
      const unsigned x = from.a(row_of(i), word), y = from.b(column_of(i), word);
      sum += double(Widen(uint16_t(x))) * double(Widen(uint16_t(y)));
      sum += double(Widen(uint16_t(x >> 16))) * double(Widen(uint16_t(y >> 16)));
    }
    d[i] = float(sum);
  }
}

}  // namespace emu
