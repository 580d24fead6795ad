#include "cuda/compile.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <system_error>

#include "cuda/sha256.h"

namespace cuda {
namespace {

namespace fs = std::filesystem;

// The bits of the CPU need multiplications and additions that are not fused, and IEEE division and square root.
const std::vector<std::string> kFlags = {"--std=c++17",     "-default-device", "-fmad=false",
                                         "-prec-div=true", "-prec-sqrt=true", "-ftz=false"};
constexpr int kFirstCuda13 = 13000;
constexpr int kNoBuiltins = 7;  // NVRTC_ERROR_BUILTIN_OPERATION_FAILURE: the library beside NVRTC's does not open

using Prog = struct OpaqueProgram*;

class Compiler {
 public:
  Compiler(void* handle, std::string path) : path_(std::move(path)) {
    bool complete = true;
    const auto get = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name));
      complete = complete && function != nullptr;
    };
    get(version_, "nvrtcVersion");
    get(create_, "nvrtcCreateProgram");
    get(destroy_, "nvrtcDestroyProgram");
    get(compile_, "nvrtcCompileProgram");
    get(log_size_, "nvrtcGetProgramLogSize");
    get(log_, "nvrtcGetProgramLog");
    get(cubin_size_, "nvrtcGetCUBINSize");
    get(cubin_, "nvrtcGetCUBIN");
    get(ptx_size_, "nvrtcGetPTXSize");
    get(ptx_, "nvrtcGetPTX");
    get(count_, "nvrtcGetNumSupportedArchs");
    get(archs_, "nvrtcGetSupportedArchs");
    complete_ = complete && version_(&major_, &minor_) == 0;
  }

  bool complete() const { return complete_; }
  int version() const { return 1000 * major_ + 10 * minor_; }
  std::string name() const { return path_ + " " + std::to_string(major_) + "." + std::to_string(minor_); }
  std::string version_text() const { return std::to_string(major_) + "." + std::to_string(minor_); }

  std::vector<int> architectures() const {
    int count = 0;
    if (count_(&count) != 0 || count <= 0) return {};
    std::vector<int> known(static_cast<size_t>(count));
    return archs_(known.data()) == 0 ? known : std::vector<int>{};
  }

  // A cubin, or PTX. Throws Unusable with the beginning of the log.
  std::string make(const std::string& architecture, bool ptx) const {
    Prog program = nullptr;
    std::vector<const char*> names, texts, flags;
    for (size_t i = 1; i < kSources.size(); ++i) {
      names.push_back(kSources[i].name);
      texts.push_back(kSources[i].text);
    }
    const std::string target = "--gpu-architecture=" + architecture;
    flags.push_back(target.c_str());
    for (const std::string& flag : kFlags) flags.push_back(flag.c_str());
    int result = 0;
    const auto say = [&](const std::string& what) -> Unusable {
      return {"the kernels do not compile for " + architecture + ": " + what,
              result == kNoBuiltins ? "install it anew with `pip install --force-reinstall \"localinfer[cuda]\"`"
                                    : "please report this, with the version of " + name()};
    };
    if (create_(&program, kSources[0].text, kSources[0].name, static_cast<int>(names.size()), texts.data(),
                names.data()) != 0)
      throw say("no program can be made");
    result = compile_(program, static_cast<int>(flags.size()), flags.data());
    std::string made;
    if (result == 0) {
      size_t size = 0;
      if ((ptx ? ptx_size_ : cubin_size_)(program, &size) == 0) made.resize(size);
      if (!made.empty() && (ptx ? ptx_ : cubin_)(program, made.data()) != 0) made.clear();
    }
    const std::string log = result != 0 ? first_lines(program) : "";
    destroy_(&program);
    if (made.empty()) throw say(log.empty() ? "nothing came out" : log);
    return made;
  }

 private:
  std::string first_lines(Prog program) const {
    constexpr size_t most = 400;
    size_t size = 0;
    if (log_size_(program, &size) != 0 || size == 0) return "";
    std::string log(size, '\0');
    log_(program, log.data());
    log.resize(std::min(log.find('\0'), most));
    std::replace(log.begin(), log.end(), '\n', ' ');
    return log;
  }

  std::string path_;
  bool complete_ = false;
  int major_ = 0, minor_ = 0;
  int (*version_)(int*, int*) = nullptr;
  int (*create_)(Prog*, const char*, const char*, int, const char* const*, const char* const*) = nullptr;
  int (*destroy_)(Prog*) = nullptr;
  int (*compile_)(Prog, int, const char* const*) = nullptr;
  int (*log_size_)(Prog, size_t*) = nullptr;
  int (*log_)(Prog, char*) = nullptr;
  int (*cubin_size_)(Prog, size_t*) = nullptr;
  int (*cubin_)(Prog, char*) = nullptr;
  int (*ptx_size_)(Prog, size_t*) = nullptr;
  int (*ptx_)(Prog, char*) = nullptr;
  int (*count_)(int*) = nullptr;
  int (*archs_)(int*) = nullptr;
};

std::vector<std::string> paths(const CompileRequest& request) {
  std::vector<std::string> all;
  if (const char* named = std::getenv("LOCALINFER_NVRTC"); named != nullptr && *named != '\0') return {named};
  const auto add = [&](const std::string& directory) {
    for (const char* file : {"libnvrtc.so.12", "libnvrtc.so.13"}) all.push_back((fs::path(directory) / file).string());
  };
  for (const std::string& directory : request.libraries) add(directory);
  for (const char* variable : {"CUDA_PATH", "CUDA_HOME"})
    if (const char* home = std::getenv(variable); home != nullptr && *home != '\0') add((fs::path(home) / "lib64").string());
  for (const char* file : {"libnvrtc.so.12", "libnvrtc.so.13"}) all.emplace_back(file);
  return all;
}

// Why the library that was just tried does not open: in brackets, or nothing when there is no such file.
std::string why_not(const std::string& path) {
  const char* said = dlerror();
  std::string why = said != nullptr ? said : "";
  if (why == path + ": cannot open shared object file: No such file or directory") return "";
  if (why.starts_with(path + ": ")) why.erase(0, path.size() + 2);
  return why.empty() ? "" : " (" + why + ")";
}

std::unique_ptr<Compiler> find(const CompileRequest& request) {
  std::string tried;
  for (const std::string& path : paths(request)) {
    tried += (tried.empty() ? "" : ", ") + path;
    void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      tried += why_not(path);
      continue;
    }
    auto compiler = std::make_unique<Compiler>(handle, path);
    if (!compiler->complete()) {
      tried += " (no NVRTC)";
    } else if (compiler->version() >= kFirstCuda13 && request.driver_version < kFirstCuda13) {
      tried += " (" + compiler->version_text() + ": newer than the driver)";
    } else {
      return compiler;
    }
  }
  throw Unusable("NVIDIA's runtime compiler (NVRTC) is not there; tried " + tried,
                 "install it with `pip install \"localinfer[cuda]\"`");
}

std::string flags_text() {
  std::string text;
  for (const std::string& flag : kFlags) text += flag + "\n";
  return text;
}

// A kept image begins with the hash of what follows, so that a damaged one is noticed.
std::string read_cached(const fs::path& path) {
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) return "";
  std::ifstream file(path, std::ios::binary);
  const std::string all{std::istreambuf_iterator<char>(file), {}};
  constexpr size_t digits = 64;
  if (all.size() > digits && sha256(all.substr(digits)) == all.substr(0, digits)) return all.substr(digits);
  fs::remove(path, ignored);
  return "";
}

// False: it could not be written.
bool keep(const fs::path& path, const std::string& image) {
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  static std::atomic<unsigned> parts{0};  // threads may keep the same image at the same time
  const fs::path part = path.string() + "." + std::to_string(getpid()) + "." + std::to_string(parts++);
  std::ofstream file(part, std::ios::binary);
  file << sha256(image) << image;
  file.close();
  if (file) fs::rename(part, path, error);
  if (file && !error) return true;
  fs::remove(part, error);
  return false;
}

}  // namespace

Found find_compiler(const CompileRequest& request) { return {find(request)->name(), paths(request)}; }

std::string sources_hash() {
  std::string all = flags_text();
  for (const Source& source : kSources) all += std::string(source.name) + "\n" + source.text;
  return sha256(all);
}

Compiled compile(const CompileRequest& request) {
  const std::unique_ptr<Compiler> compiler = find(request);
  const std::vector<int> known = compiler->architectures();
  Compiled made;
  made.compiler = compiler->name();
  std::string architecture = "sm_" + std::to_string(request.sm);
  if (!known.empty() && std::find(known.begin(), known.end(), request.sm) == known.end()) {
    int nearest = 0;
    for (const int one : known)
      if (one <= request.sm) nearest = std::max(nearest, one);
    if (nearest < kOldestCard)
      throw Unusable(compiler->name() + " does not know " + architecture, "install a newer NVRTC");
    made.ptx = true;
    made.note = compiler->name() + " does not know " + architecture + ": the driver compiles the kernels from compute_" +
                std::to_string(nearest) + ", anew in every process";
    architecture = "compute_" + std::to_string(nearest);
  }
  const std::string name = sha256(sources_hash() + compiler->version_text() + architecture);
  const fs::path path = fs::path(request.keep) / (name + (made.ptx ? ".ptx" : ".cubin"));
  if (!request.keep.empty()) made.image = read_cached(path);
  made.cached = !made.image.empty();
  if (made.cached) return made;
  made.image = compiler->make(architecture, made.ptx);
  if (!request.keep.empty() && !keep(path, made.image))
    made.note += (made.note.empty() ? "" : "; ") + std::string("the compiled kernels cannot be kept in ") + request.keep;
  return made;
}

}  // namespace cuda
