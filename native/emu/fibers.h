// A fiber: a stack of its own on which a function runs until it gives the processor back.
#pragma once
#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "sanitizers.h"

#if defined(__x86_64__) && defined(__ELF__) && !defined(LI_EMU_UCONTEXT)
#define LI_EMU_ASSEMBLY 1
#else
#include <ucontext.h>
#endif

namespace emu {

#if defined(LI_EMU_ASSEMBLY)

// Saves what a call must preserve on the present stack, stores that stack's pointer, continues on the other one.
// Written at file scope, so that no compiler can look inside and guess which registers survive.
extern "C" void li_emu_switch(void** save, void* next);
asm(R"(
.pushsection .text.li_emu_switch,"axG",@progbits,li_emu_switch,comdat
.weak li_emu_switch
.hidden li_emu_switch
.type li_emu_switch,@function
li_emu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size li_emu_switch,.-li_emu_switch
.popsection
)");

struct Context {
  void* stack_pointer = nullptr;
};

// The stack as li_emu_switch left it, had it been called at the start of `entry`: six registers, where to return to,
// and nowhere for `entry` itself to return to.
inline void prepare(Context& context, char* stack, size_t bytes, void (*entry)()) {
  void** top = reinterpret_cast<void**>(stack + bytes);
  top[-1] = nullptr;
  top[-2] = reinterpret_cast<void*>(entry);
  for (int i = 3; i <= 8; ++i) top[-i] = nullptr;
  context.stack_pointer = top - 8;
}

inline void exchange_contexts(Context& from, Context& to) { li_emu_switch(&from.stack_pointer, to.stack_pointer); }

#else

struct Context {
  ucontext_t state;
};

inline void prepare(Context& context, char* stack, size_t bytes, void (*entry)()) {
  getcontext(&context.state);
  context.state.uc_stack.ss_sp = stack;
  context.state.uc_stack.ss_size = bytes;
  context.state.uc_link = nullptr;
  makecontext(&context.state, entry, 0);
}

inline void exchange_contexts(Context& from, Context& to) { swapcontext(&from.state, &to.state); }

#endif

class Fiber {
 public:
  explicit Fiber(void (*body)()) : body_(body) {  // body must not return
    map_ = static_cast<char*>(mmap(nullptr, kGuard + kStack, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (map_ == MAP_FAILED || mprotect(map_, kGuard, PROT_NONE) != 0) {
      std::perror("emulator: no memory for the stack of a thread");
      std::abort();
    }
    prepare(here_, map_ + kGuard, kStack, &Fiber::enter);
#if defined(LI_TSAN)
    tsan_here_ = __tsan_create_fiber(0);
#endif
  }
  ~Fiber() {
#if defined(LI_TSAN)
    __tsan_destroy_fiber(tsan_here_);
#endif
    munmap(map_, kGuard + kStack);
  }
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // From the host: continues the fiber until it suspends itself.
  LI_UNCHECKED __attribute__((noinline)) void resume() {
    starting = this;
#if defined(LI_TSAN)
    tsan_host_ = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(tsan_here_, kNoOrder);
#elif defined(LI_ASAN)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, map_ + kGuard, kStack);
#endif
    exchange_contexts(host_, here_);
#if defined(LI_ASAN)
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
  }

  // From inside: back to the host.
  LI_UNCHECKED __attribute__((noinline)) void suspend() {
#if defined(LI_TSAN)
    __tsan_switch_to_fiber(tsan_host_, kNoOrder);
#elif defined(LI_ASAN)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, host_bottom_, host_bytes_);
#endif
    exchange_contexts(here_, host_);
#if defined(LI_ASAN)
    __sanitizer_finish_switch_fiber(fake, &host_bottom_, &host_bytes_);
#endif
  }

 private:
  static constexpr size_t kStack = 256 << 10;
  static constexpr size_t kGuard = 64 << 10;  // a multiple of every page size; touching it ends the process
  static constexpr unsigned kNoOrder = 1;  // a switch orders nothing: only the kernel's barriers do

  LI_UNCHECKED __attribute__((noinline)) static void enter() {
    Fiber& self = *starting;
#if defined(LI_ASAN)
    __sanitizer_finish_switch_fiber(nullptr, &self.host_bottom_, &self.host_bytes_);
#endif
    self.body_();
    std::abort();
  }

  inline static Fiber* starting = nullptr;

  Context here_, host_;
  char* map_;
  void (*body_)();
#if defined(LI_TSAN)
  void* tsan_here_;
  void* tsan_host_ = nullptr;
#elif defined(LI_ASAN)
  const void* host_bottom_ = nullptr;
  size_t host_bytes_ = 0;
#endif
};

}  // namespace emu
