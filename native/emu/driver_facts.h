// What the stand-in driver says of its device, and the texts of its errors.
#pragma once
#include <cstdlib>
#include <map>
#include <utility>

#include "driver_state.h"

namespace stand_in {

inline size_t total_memory() { return std::strtoull(setting("LI_EMU_MEMORY", "8589934592"), nullptr, 10); }
inline int compute_capability() { return std::atoi(setting("LI_EMU_SM", "86")); }

inline int most_shared() { return compute_capability() == 75 ? 64 << 10 : 99 << 10; }

inline std::map<int, int> attributes() {
  return {
      {1, 1024},       // threads a block
      {8, 48 << 10},   // shared memory of a block
      {10, 32},        // lanes
      {13, 1500000},   // kHz
      {16, 2},         // multiprocessors
      {36, 7001000},   // kHz of the memory
      {37, 128},       // bits of its bus
      {38, 2 << 20},   // bytes of L2
      {75, compute_capability() / 10},
      {76, compute_capability() % 10},
      {97, most_shared()},  // shared memory of a block that asks for it
  };
}

inline const std::map<int, std::pair<const char*, const char*>> kErrors = {
    {0, {"CUDA_SUCCESS", "no error"}},
    {1, {"CUDA_ERROR_INVALID_VALUE", "invalid argument"}},
    {2, {"CUDA_ERROR_OUT_OF_MEMORY", "out of memory"}},
    {3, {"CUDA_ERROR_NOT_INITIALIZED", "initialization error"}},
    {100, {"CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"}},
    {101, {"CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"}},
    {200, {"CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"}},
    {201, {"CUDA_ERROR_INVALID_CONTEXT", "invalid device context"}},
    {209, {"CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"}},
    {218, {"CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"}},
    {222, {"CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the provided PTX was compiled with an unsupported toolchain."}},
    {400, {"CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"}},
    {500, {"CUDA_ERROR_NOT_FOUND", "named symbol not found"}},
    {600, {"CUDA_ERROR_NOT_READY", "device not ready"}},
    {700, {"CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"}},
    {701, {"CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"}},
    {716, {"CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"}},
    {719, {"CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"}},
    {803, {"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "system has unsupported display driver / cuda driver combination"}},
    {900, {"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"}},
    {901, {"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"}},
    {999, {"CUDA_ERROR_UNKNOWN", "unknown error"}},
};

}  // namespace stand_in
