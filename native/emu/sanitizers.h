// What the sanitizers must be told about fibers. Without one of them everything here is empty.
// TSan sees each CUDA thread as a thread of its own, ordered by barriers only; ASan must know which stack is in use.
#pragma once
#include <cstddef>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define LI_TSAN 1
#elif __has_feature(address_sanitizer)
#define LI_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define LI_TSAN 1
#elif defined(__SANITIZE_ADDRESS__)
#define LI_ASAN 1
#endif

// For the few functions that change stacks: instrumented, they would enter on one stack and leave on another.
#define LI_UNCHECKED __attribute__((no_sanitize("thread", "address")))

#if defined(LI_TSAN)
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
void __tsan_ignore_thread_begin();
void __tsan_ignore_thread_end();
}
#elif defined(LI_ASAN)
extern "C" {
void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, size_t bytes);
void __sanitizer_finish_switch_fiber(void* fake_stack, const void** old_bottom, size_t* old_bytes);
}
#endif

namespace emu {

#if defined(LI_TSAN)
inline void publish(void* sync) { __tsan_release(sync); }
inline void observe(void* sync) { __tsan_acquire(sync); }
// The emulator's own reads and writes are not the kernel's: while one of these lives, TSan looks away.
struct Unseen {
  Unseen() { __tsan_ignore_thread_begin(); }
  ~Unseen() { __tsan_ignore_thread_end(); }
  Unseen(const Unseen&) = delete;
  Unseen& operator=(const Unseen&) = delete;
};
#else
inline void publish(void*) {}
inline void observe(void*) {}
struct Unseen {
  Unseen() {}   // written out, so that an unused one is no warning
  ~Unseen() {}
};
#endif

}  // namespace emu
