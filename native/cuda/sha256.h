// SHA-256 (FIPS 180-4), for the names of kept kernels.
#pragma once
#include <string>

namespace cuda {

// 64 hexadecimal digits.
std::string sha256(const std::string& bytes);

}  // namespace cuda
