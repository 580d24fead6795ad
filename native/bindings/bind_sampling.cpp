// The sampler.
#include <cmath>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "core/error.h"
#include "core/sampling.h"

using namespace nb::literals;

namespace {

int64_t sample_token(Vector<float> logits, Vector<const int32_t> recent, float temperature, size_t top_k, double top_p,
                    double min_p, float repeat_penalty, uint64_t seed, uint64_t position) {
  REQUIRE(logits.shape(0) > 0 && logits.shape(0) <= size_t{1} << 31, "%zu logits", logits.shape(0));
  REQUIRE(temperature >= 0 && std::isfinite(temperature), "temperature is %g", static_cast<double>(temperature));
  REQUIRE(top_p >= 0 && top_p <= 1, "top_p is %g, but must lie between 0 and 1", top_p);
  REQUIRE(min_p >= 0 && min_p <= 1, "min_p is %g, but must lie between 0 and 1", min_p);
  REQUIRE(repeat_penalty > 0 && std::isfinite(repeat_penalty), "repeat_penalty is %g",
          static_cast<double>(repeat_penalty));
  const nb::gil_scoped_release unlocked;
  return sample(logits.data(), logits.shape(0), recent.data(), recent.shape(0),
                {temperature, top_k, top_p, min_p, repeat_penalty}, seed, position);
}

constexpr const char* kSampleHelp =
    "Choose a token: a pure function of its arguments, the same on every machine.\n\n"
    "Each token of `recent` once has its logit divided by `repeat_penalty` (multiplied when negative), in place. Of the\n"
    "`top_k` largest (0: all), the fewest that together reach `top_p`, and of these those at least `min_p` times as\n"
    "likely as the likeliest, wins argmax(logit / temperature + gumbel(hash(seed, position, token))). Temperature 0\n"
    "takes the lowest index of the largest logit. -1, and nothing is changed, where a logit is NaN or infinite.";

}  // namespace

void bind_sampling(nb::module_& m) {
  m.def("sample", &sample_token, "logits"_a.noconvert(), "recent"_a.noconvert(), "temperature"_a, "top_k"_a, "top_p"_a,
        "min_p"_a, "repeat_penalty"_a, "seed"_a, "position"_a, kSampleHelp);
}
