#include "cuda/kernels.h"

#include "core/error.h"

namespace cuda {

Kernels::Kernels(std::shared_ptr<const Session> session, const void* image, size_t row_bytes)
    : session_(std::move(session)) {
  constexpr size_t without_asking = size_t{48} << 10;
  constexpr int max_dynamic_shared = 8;
  const Driver& driver = session_->driver();
  session_->enter();
  session_->check(driver.ModuleLoadData(&module_, image), "loading the kernels");
#define X(name) session_->check(driver.ModuleGetFunction(&name, module_, #name), "looking for kernel " #name);
#include "cuda/kernels.def"
#undef X
  REQUIRE(row_bytes <= session_->card().shared_bytes || row_bytes <= without_asking,
          "a row needs %zu bytes of the card's shared memory, but it has %zu", row_bytes, session_->card().shared_bytes);
  if (row_bytes > without_asking)
    session_->check(driver.FuncSetAttribute(ready, max_dynamic_shared, static_cast<int>(row_bytes)),
                    "asking for shared memory");
}

Kernels::~Kernels() {
  if (module_ != nullptr && session_->try_enter()) session_->driver().ModuleUnload(module_);
}

void Kernels::launch_raw(Handle kernel, Grid grid, size_t threads, size_t shared, void** args) const {
  const auto narrow = [](size_t n) { return static_cast<unsigned>(n); };
  ++launches_;
  session_->check(session_->driver().LaunchKernel(kernel, narrow(grid.x), narrow(grid.y), narrow(grid.z), narrow(threads),
                                                  1, 1, narrow(shared), session_->stream(), args, nullptr),
                  "launching a kernel");
}

}  // namespace cuda
