// Writes the floats of all 65536 halves, then the halves of the floats on stdin.
#include <cstdio>
#include <vector>

#include "cuda/dev.cuh"

int main() {
  std::vector<float> floats(65536);
  for (unsigned i = 0; i < 65536; ++i) floats[i] = li::half_to_float(uint16_t(i));
  std::fwrite(floats.data(), sizeof(float), floats.size(), stdout);
  for (float value; std::fread(&value, sizeof value, 1, stdin) == 1;) {
    const unsigned short half = li::float_to_half(value);
    std::fwrite(&half, sizeof half, 1, stdout);
  }
}
