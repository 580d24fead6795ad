// Rounding of weights, for `quantize`: columns side by side, on the thread that asks.
#include <nanobind/stl/string.h>

#include "bindings/bindings.h"
#include "bindings/strided.h"
#include "kernels/dispatch.h"

using namespace nb::literals;

namespace {

RoundJob job_of(const Matrix<const float>& w, size_t scales, size_t bits) {
  REQUIRE(bits == 3 || bits == 4 || bits == 5 || bits == 8, "bits is %zu, but must be 3, 4, 5 or 8", bits);
  REQUIRE(w.shape(0) >= 1 && w.shape(0) <= kLongestGroup, "a group has %zu rows, must have 1 to %d", w.shape(0),
          static_cast<int>(kLongestGroup));
  REQUIRE(scales == w.shape(1), "%zu scales of %zu columns", scales, w.shape(1));
  return {w.data(), row_stride(w, "w"), w.shape(1), w.shape(0), static_cast<float>(1 << (bits - 1))};
}

void group_scales(Vector<float> scale, Matrix<const float> w, Matrix<const float> share, Vector<const float> trials,
                  size_t bits, const std::string& isa) {
  const RoundJob job = job_of(w, scale.shape(0), bits);
  REQUIRE(share.shape(0) == job.group && (share.shape(1) == job.n || share.shape(1) == 1),
          "share is [%zu, %zu], must be [%zu, 1 or %zu]", share.shape(0), share.shape(1), job.group, job.n);
  const size_t apart = row_stride(share, "share");
  REQUIRE(share.shape(1) > 1 || apart == 1 || job.group == 1, "share of one column must be contiguous");
  const KernelTable& kernels = kernels_for(isa);
  const nb::gil_scoped_release unlocked;
  kernels.group_scales(scale.data(), &job, share.data(), share.shape(1) > 1 ? apart : 0, trials.data(),
                       trials.shape(0));
}

void round_forward(Matrix<float> q, Matrix<float> off, Matrix<const float> w, Vector<const float> scale,
                   Matrix<const float> left, size_t bits, const std::string& isa) {
  const RoundJob job = job_of(w, scale.shape(0), bits);
  const size_t group = job.group, n = job.n;
  REQUIRE(q.shape(0) == group && q.shape(1) == n && off.shape(0) == group && off.shape(1) == n,
          "q and off must be [%zu, %zu]", group, n);
  REQUIRE(left.shape(0) == group && left.shape(1) == group && row_stride(left, "left") == group,
          "left must be [%zu, %zu], contiguous", group, group);
  const size_t ldq = row_stride(q, "q"), ldo = row_stride(off, "off");
  const KernelTable& kernels = kernels_for(isa);
  const nb::gil_scoped_release unlocked;
  kernels.round_forward(q.data(), ldq, off.data(), ldo, &job, scale.data(), left.data());
}

void round_again(Matrix<float> q, Matrix<const float> w, Vector<const float> scale, Matrix<const float> inner,
                 size_t bits, const std::string& isa) {
  const RoundJob job = job_of(w, scale.shape(0), bits);
  const size_t group = job.group;
  REQUIRE(q.shape(0) == group && q.shape(1) == job.n, "q must be [%zu, %zu]", group, job.n);
  REQUIRE(inner.shape(0) == group && inner.shape(1) == group && row_stride(inner, "inner") == group,
          "inner must be [%zu, %zu], contiguous", group, group);
  const size_t ldq = row_stride(q, "q");
  const KernelTable& kernels = kernels_for(isa);
  const nb::gil_scoped_release unlocked;
  kernels.round_again(q.data(), ldq, &job, scale.data(), inner.data());
}

}  // namespace

void bind_rounding(nb::module_& m) {
  m.def("group_scales", group_scales, "scale"_a.noconvert(), "w"_a.noconvert(), "share"_a.noconvert(),
        "trials"_a.noconvert(), "bits"_a, nb::kw_only(), "isa"_a = "",
        "scale [n] = the best signed scales of groups that stand side by side, w [group, n]; share [group, n or 1] weighs\n"
        "their squared errors. `trials` are inverses of shares of the scale that the largest weight asks for.");
  m.def("round_forward", round_forward, "q"_a.noconvert(), "off"_a.noconvert(), "w"_a.noconvert(),
        "scale"_a.noconvert(), "left"_a.noconvert(), "bits"_a, nb::kw_only(), "isa"_a = "",
        "Round groups that stand side by side, w [group, n], row by row: q = w / scale, off -= q * scale, and later rows\n"
        "of w take up left [group, group] of that; w itself stays.");
  m.def("round_again", round_again, "q"_a.noconvert(), "w"_a.noconvert(), "scale"_a.noconvert(),
        "inner"_a.noconvert(), "bits"_a, nb::kw_only(), "isa"_a = "",
        "Change the integers q [group, n] row by row to the best ones given all others, w being slopes [group, n] and\n"
        "inner [group, group] the second moments; w itself stays.");
}
