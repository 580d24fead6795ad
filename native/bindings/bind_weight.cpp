// Weights: packed from arrays as they lie on disk.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <optional>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "core/error.h"
#include "core/pack.h"
#include "core/probe.h"
#include "core/program.h"

using namespace nb::literals;

namespace {

using Bf16Array = Matrix<const uint16_t>;
using IntArrays = std::tuple<Matrix<const int32_t>, Matrix<const Half>>;  // packed words, scales

StoredRows in_memory(const void* data) { return {static_cast<const uint8_t*>(data)}; }

size_t thread_count(size_t threads) {
  REQUIRE(threads <= 1024, "%zu threads", threads);
  return threads != 0 ? threads : physical_cores();
}

std::shared_ptr<Weight> make_bf16(const std::vector<Bf16Array>& arrays, bool interleave, size_t threads) {
  REQUIRE(!arrays.empty(), "a weight needs at least one part");
  WeightShape shape{kBf16, arrays[0].shape(1), 0, {}, interleave};
  std::vector<StoredPart> parts;
  for (const Bf16Array& array : arrays) {
    REQUIRE(array.shape(1) == shape.cols, "parts of %zu and %zu columns cannot be stacked", shape.cols, array.shape(1));
    shape.parts.push_back(array.shape(0));
    parts.push_back({in_memory(array.data())});
  }
  const nb::gil_scoped_release unlocked;
  Pool pool(thread_count(threads));
  return pack(shape, parts, pool);
}

std::shared_ptr<Weight> make_int(size_t bits, size_t group, const std::vector<IntArrays>& arrays, bool interleave,
                                 size_t threads, size_t activation_bits) {
  REQUIRE(!arrays.empty(), "a weight needs at least one part");
  REQUIRE(bits != 16, "integers have 3, 4, 5 or 8 bits, not 16");
  REQUIRE(group == 32 || group == 64 || group == 128, "group is %zu, but must be 32, 64 or 128", group);
  WeightShape shape{kind_of(bits), std::get<1>(arrays[0]).shape(1) * group, group, {}, interleave, 0,
                    activation_bits};
  std::vector<StoredPart> parts;
  for (const auto& [words, scales] : arrays) {
    REQUIRE(scales.shape(1) * group == shape.cols, "parts of %zu and %zu columns cannot be stacked", shape.cols,
            scales.shape(1) * group);
    REQUIRE(words.shape(0) == scales.shape(0), "%zu rows of packed values, but %zu rows of scales", words.shape(0),
            scales.shape(0));
    REQUIRE(words.shape(1) == (shape.cols * bits + 31) / 32,
            "%zu columns of %zu bits are %zu words a row, but there are %zu", shape.cols, bits,
            (shape.cols * bits + 31) / 32, words.shape(1));
    shape.parts.push_back(words.shape(0));
    parts.push_back({in_memory(words.data()), in_memory(scales.data())});
  }
  const nb::gil_scoped_release unlocked;
  Pool pool(thread_count(threads));
  return pack(shape, parts, pool);
}

using AffineArrays = std::tuple<Matrix<const int32_t>, Matrix<const Half>, Matrix<const Half>, Matrix<const uint8_t>>;

std::shared_ptr<Weight> make_affine(size_t group, size_t wide, const std::vector<AffineArrays>& arrays, bool interleave,
                                    size_t threads, size_t bits) {
  REQUIRE(!arrays.empty(), "a weight needs at least one part");
  const WeightKind kind = kind_of(bits, true);
  const size_t row_words = std::get<0>(arrays[0]).shape(1), cols = row_words * 32 / bits;
  check_shape({kind, cols, group, {1}, false, wide, 8});
  const size_t count = cols / wide, groups = cols / group;
  WeightShape shape{kind, cols, group, {}, interleave, wide, 8};
  std::vector<StoredPart> parts;
  for (const auto& [words, scales, minima, factors] : arrays) {
    const size_t rows = words.shape(0);
    REQUIRE(words.shape(1) == row_words, "parts of %zu and %zu words a row cannot be stacked", row_words, words.shape(1));
    shape.parts.push_back(rows);
    REQUIRE(scales.shape(0) == rows && minima.shape(0) == rows && scales.shape(1) == count && minima.shape(1) == count,
            "scales and minima must be [%zu, %zu]", rows, count);
    REQUIRE(factors.shape(0) == rows && factors.shape(1) == 2 * groups, "factors must be [%zu, %zu]", rows, 2 * groups);
    parts.push_back({in_memory(words.data()), in_memory(scales.data()), in_memory(minima.data()),
                     in_memory(factors.data())});
  }
  const nb::gil_scoped_release unlocked;
  Pool pool(thread_count(threads));
  return pack(shape, parts, pool);
}

using CodeArrays = std::tuple<Matrix<const int32_t>, Matrix<const uint8_t>>;

std::shared_ptr<Weight> make_mxfp4(const std::vector<CodeArrays>& arrays, bool interleave, size_t threads) {
  REQUIRE(!arrays.empty(), "a weight needs at least one part");
  WeightShape shape{kMxfp4, std::get<1>(arrays[0]).shape(1) * 32, 32, {}, interleave, 0, 8};
  std::vector<StoredPart> parts;
  for (const auto& [words, exponents] : arrays) {
    REQUIRE(words.shape(1) * 8 == shape.cols && exponents.shape(1) * 32 == shape.cols,
            "%zu words and %zu exponents a row do not make %zu columns", words.shape(1), exponents.shape(1), shape.cols);
    REQUIRE(words.shape(0) == exponents.shape(0), "%zu rows of codes, but %zu rows of exponents", words.shape(0),
            exponents.shape(0));
    shape.parts.push_back(words.shape(0));
    parts.push_back({in_memory(words.data()), in_memory(exponents.data())});
  }
  const nb::gil_scoped_release unlocked;
  Pool pool(thread_count(threads));
  return pack(shape, parts, pool);
}

using FileParts = std::vector<std::tuple<size_t, int, uint64_t, int, uint64_t>>;

// bits, group, columns, parts, interleaved, bits of activations.
using FileJob = std::tuple<size_t, size_t, size_t, FileParts, bool, size_t>;

std::shared_ptr<Weight> make_from_files(Program& program, const FileJob& job) {
  const auto& [bits, group, cols, files, interleave, activation_bits] = job;
  WeightShape shape{kind_of(bits), cols, group, {}, interleave, 0, bits == 16 ? 0 : activation_bits};
  std::vector<StoredPart> parts;
  for (const auto& [rows, values, values_at, scales, scales_at] : files) {
    shape.parts.push_back(rows);
    parts.push_back({{nullptr, values, values_at}, {nullptr, scales, scales_at}});
  }
  return program.pack_weight(shape, parts);
}

// Python runs meanwhile; now and then it is told how far this is, and asked whether a signal has come.
std::vector<std::shared_ptr<Weight>> make_all_from_files(Program& program, const std::vector<FileJob>& jobs,
                                                         const std::optional<nb::callable>& on_packed) {
  constexpr auto kTellEvery = std::chrono::milliseconds(200);
  std::vector<std::shared_ptr<Weight>> made;
  const nb::gil_scoped_release unlocked;
  auto told = std::chrono::steady_clock::now();
  for (const FileJob& job : jobs) {
    made.push_back(make_from_files(program, job));
    const auto now = std::chrono::steady_clock::now();
    if (now - told < kTellEvery) continue;
    told = now;
    const nb::gil_scoped_acquire locked;
    if (PyErr_CheckSignals() != 0) nb::raise_python_error();
    if (on_packed) (*on_packed)(made.size());
  }
  return made;
}

size_t packed_bytes(size_t bits, size_t group, size_t cols, const std::vector<size_t>& rows, size_t wide,
                    bool mxfp4) {
  REQUIRE(!mxfp4 || bits == 4, "MXFP4 has 4 bits, not %zu", bits);
  const WeightKind kind = mxfp4 ? kMxfp4 : kind_of(bits, wide != 0);
  const WeightShape shape{kind, cols, group, rows, false, wide, bits == 16 ? size_t{0} : 8};
  check_shape(shape);
  return shape.bytes();
}

Vector<float> read_row(const Weight& weight, size_t row) {
  auto* values = new float[weight.shape.cols];
  nb::capsule owner(values, [](void* p) noexcept { delete[] static_cast<float*>(p); });
  weight.row(row, values);
  return Vector<float>(values, {weight.shape.cols}, owner);
}

void write_panels(const Weight& weight, int file, uint64_t at) {
  REQUIRE(weight.memory.data != nullptr, "a weight without values cannot be written");
  const uint8_t* from = weight.memory.data;
  for (size_t left = weight.bytes(); left > 0;) {
    ssize_t done = 0;
    {
      const nb::gil_scoped_release unlocked;
      done = pwrite(file, from, left, static_cast<off_t>(at));
    }
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) {
      PyErr_SetFromErrno(PyExc_OSError);
      nb::raise_python_error();
    }
    from += done, at += static_cast<uint64_t>(done), left -= static_cast<size_t>(done);
  }
}

bool equals_panels(const Weight& weight, int file, uint64_t at) {
  REQUIRE(weight.memory.data != nullptr, "a weight without values cannot be compared");
  std::vector<uint8_t> found(weight.bytes());
  return read_all(found.data(), found.size(), file, at) && std::equal(found.begin(), found.end(), weight.memory.data);
}

std::shared_ptr<RowFile> open_rows(size_t bits, size_t group, size_t cols, size_t rows,
                                   const std::tuple<int, uint64_t, int, uint64_t>& at, const std::string& name) {
  const WeightShape shape{kind_of(bits), cols, group, {rows}, false, 0, bits == 16 ? size_t{0} : 8};
  const auto& [values, values_at, scales, scales_at] = at;
  return std::make_shared<RowFile>(shape, values, values_at, scales, scales_at, name);
}

Vector<float> row_in_file(const RowFile& file, size_t row) {
  auto* values = new float[file.shape().cols];
  nb::capsule owner(values, [](void* p) noexcept { delete[] static_cast<float*>(p); });
  std::vector<uint64_t> room(file.row_bytes() / 8 + 1);
  file.row(row, values, reinterpret_cast<uint8_t*>(room.data()));
  file.require_whole();
  return Vector<float>(values, {file.shape().cols}, owner);
}

// As the program's own error for people.
void raise_damaged(const std::exception_ptr& caught, void* /*unused*/) {
  try {
    std::rethrow_exception(caught);
  } catch (const FileDamaged& error) {
    const nb::object type = nb::module_::import_("localinfer.errors").attr("Corrupt");
    PyErr_SetObject(type.ptr(), type(error.what(), "hint"_a = "start again; if it stays, download the model again").ptr());
  }
}

}  // namespace

void bind_weight(nb::module_& m) {
  nb::class_<Weight>(m, "Weight", "A matrix packed for the kernels, in memory of its own. Immutable.")
      .def_prop_ro("kind", [](const Weight& w) { return kind_name(w.shape.kind); }, "`int3`, `int4`, `int5`, `int8`, `affine4`, `affine5`, `mxfp4` or `bf16`.")
      .def_prop_ro("rows", [](const Weight& w) { return w.shape.rows(); }, "Rows of all parts, without padding.")
      .def_prop_ro("cols", [](const Weight& w) { return w.shape.cols; }, "Columns.")
      .def_prop_ro("group", [](const Weight& w) { return w.shape.group; }, "Columns that share a scale; 0 for bf16.")
      .def_prop_ro("wide", [](const Weight& w) { return w.shape.wide; },
                   "Columns of affine weights that share scale and minimum, which each group has factors of; else 0.")
      .def_prop_ro("activation_bits", [](const Weight& w) { return w.shape.activation_bits; },
                   "Bits of the integers that its activations are rounded to, 8 or 16; 0 for bf16.")
      .def_prop_ro("nbytes", &Weight::bytes, "Bytes in memory, padding included.")
      .def("row", &read_row, "i"_a,
           "Row `i` as float32, dequantized. Rows count over the parts in the order they were given.\n\n"
           "Raises ValueError when there is no such row.")
      .def("without_values", [](const Weight& w) { return without_values(w); }, "What it is, for a pool that has its panels.")
      .def("write", &write_panels, "file"_a, "at"_a,
           "Write the panels into an open file from byte `at` on. Raises OSError.")
      .def("equals", &equals_panels, "file"_a, "at"_a, "Whether an open file has just these panels from byte `at` on.");
  nb::register_exception_translator(&raise_damaged);
  nb::class_<RowFile>(m, "RowFile", "A matrix that stays in its file, of which rows are read when they are asked for.")
      .def_prop_ro("nbytes", &RowFile::bytes, "Bytes in the file.")
      .def("row", &row_in_file, "i"_a,
           "Row `i` as float32, dequantized. Raises ValueError when there is no such row, Corrupt when it cannot be had.");
  m.def("open_rows", &open_rows, "bits"_a, "group"_a, "cols"_a, "rows"_a, "at"_a, "name"_a,
        "A matrix in open files, bf16 (`bits` 16, `group` 0) or integers as in `pack_int`; `at` is (file of the values,\n"
        "their first byte, file of the scales, their first byte). Both stay open. `name` is for people.\n\n"
        "Raises ValueError for a shape that cannot be read, Corrupt where a file is too short for it.");
  m.def("packed_bytes", &packed_bytes, "bits"_a, "group"_a, "cols"_a, "rows"_a, "wide"_a = 0, "mxfp4"_a = false,
        "Bytes that matrices of `cols` columns, stacked, take when packed, padding included; `rows` are those of each.\n\n"
        "`bits` 3, 4, 5, 8, or 16 for bf16, with `group` 0; `wide` of affine weights. Raises ValueError for a\n"
        "shape that cannot be packed.");
  m.def("pack_bf16", &make_bf16, "parts"_a.noconvert(), "interleave"_a = false, "threads"_a = 0,
        "Pack bf16 matrices (as uint16, each [rows, cols]), stacked by rows, every part padded to whole panels.\n\n"
        "With `interleave`, two parts of equal shape alternate by panels (gate, up). `threads` 0: one a physical core.\n"
        "Raises ValueError on shapes that disagree, MemoryError with the size.");
  m.def("pack_int", &make_int, "bits"_a, "group"_a, "parts"_a.noconvert(), "interleave"_a = false, "threads"_a = 0,
        nb::kw_only(), "activation_bits"_a = 8,
        "Pack integer matrices in compressed-tensors `pack-quantized` form, each (int32 words [rows, ceil(cols * bits\n"
        "/ 32)], float16 scales [rows, cols / group]); bits 3, 4, 5 or 8, group 32, 64 or 128.\n\n"
        "`activation_bits` is 8, or, for weights of 8 bits, 16: twice the work, activations 256 times as fine.\n"
        "Parts and errors as in `pack_bf16`.");
  m.def("pack_affine", &make_affine, "group"_a, "wide"_a, "parts"_a.noconvert(), "interleave"_a = false, "threads"_a = 0,
        nb::kw_only(), "bits"_a = 4,
        "Pack matrices of weights scale * factor * q + minimum * factor, q of 4 or 5 bits from 0 on, each (int32 words\n"
        "[rows, cols * bits / 32], float16 scales and minima [rows, cols / wide], uint8 factors [rows, 2 * cols / group]: of\n"
        "each group the scale's, then the minimum's); group 32, 64 or 128, `wide` that times 1, 2, 4 or 8.\n\n"
        "Parts and errors as in `pack_bf16`.");
  m.def("pack_mxfp4", &make_mxfp4, "parts"_a.noconvert(), "interleave"_a = false, "threads"_a = 0,
        "Pack 4-bit floats, each (int32 words of codes [rows, cols / 8], uint8 e [rows, cols / 32]): a weight is twice the\n"
        "number of its code, times 2 to the power of e - 127; 0 where e is 0. Parts and errors as in `pack_bf16`.");
  m.def("pack_files", &make_all_from_files, "program"_a, "jobs"_a, "on_packed"_a = nb::none(),
        nb::sig("def pack_files(program: Program, jobs: Sequence[tuple[int, int, int, Sequence[tuple[int, int, int, int, "
                "int]], bool, int]], on_packed: collections.abc.Callable[[int], object] | None = None) -> list[Weight | None]"),
        "Pack matrices straight from open files, on the threads of the `program` they are for; Python runs meanwhile.\n\n"
        "A job, one weight, is (bits, group, columns, parts, interleave, bits of activations); a part is (rows, file of\n"
        "the values, their first byte, file of the scales, their first byte). `bits` 16 is bf16, with `group` 0 and no\n"
        "scales. The rest as in `pack_int`. A weight is None when a file cannot be read as far as that, or holds NaN or\n"
        "infinity. `on_packed` is told five times a second at most how many weights are done; what it raises ends it.");
}
