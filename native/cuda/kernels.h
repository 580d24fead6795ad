// The compiled kernels, loaded, and how one is launched.
#pragma once
#include <memory>

#include "cuda/driver.h"

namespace cuda {

class Kernels {
 public:
  // `image` is what `compile` made for this card; `row_bytes` of shared memory is what the widest row needs.
  Kernels(std::shared_ptr<const Session> session, const void* image, size_t row_bytes);
  ~Kernels();
  Kernels(const Kernels&) = delete;
  Kernels& operator=(const Kernels&) = delete;

#define X(name) Handle name = nullptr;
#include "cuda/kernels.def"
#undef X

  struct Grid {
    size_t x = 1, y = 1, z = 1;
  };
  // Puts `kernel` into the stream; `args` is one of args.h and is copied.
  template <class Args>
  void launch(Handle kernel, Grid grid, size_t threads, size_t shared, Args args) const {
    void* pointers[] = {&args};
    launch_raw(kernel, grid, threads, shared, pointers);
  }
  size_t launches() const { return launches_; }  // so far

 private:
  void launch_raw(Handle kernel, Grid grid, size_t threads, size_t shared, void** args) const;

  std::shared_ptr<const Session> session_;
  Handle module_ = nullptr;
  mutable size_t launches_ = 0;
};

}  // namespace cuda
