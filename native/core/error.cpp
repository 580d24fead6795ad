#include "core/error.h"

#include <cstdarg>
#include <cstdio>
#include <stdexcept>

void refuse(const char* format, ...) {
  char message[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  throw std::invalid_argument(message);
}

OutOfMemory::OutOfMemory(size_t bytes, const char* what) {
  char message[256];
  std::snprintf(message, sizeof message, "no memory for %s: %.1f MB (%zu bytes) were asked for", what,
                static_cast<double>(bytes) / 1e6, bytes);
  message_ = message;
}
