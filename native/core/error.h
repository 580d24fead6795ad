// Errors of the native code: plain C++ exceptions, which the bindings turn into Python's.
#pragma once
#include <new>
#include <string>

// An argument that cannot be used; the message holds the numbers. Becomes ValueError.
[[noreturn]] void refuse(const char* format, ...) __attribute__((format(printf, 1, 2)));

// `refuse` unless `ok`.
#define REQUIRE(ok, ...) \
  do {                   \
    if (!(ok)) [[unlikely]] refuse(__VA_ARGS__); \
  } while (false)

// The system has no such amount of memory. Becomes MemoryError.
class OutOfMemory : public std::bad_alloc {
 public:
  OutOfMemory(size_t bytes, const char* what);
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  std::string message_;
};
