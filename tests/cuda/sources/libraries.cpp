// Libraries that are wrong in one way each, which no package gives us: built with -D for the way.
//   OLD_DRIVER   a libcuda for CUDA 11.8         PART_DRIVER  one without most of its functions
//   NVRTC=13     a compiler of that version: what it makes says so, and has MORE bytes than that needs. ARCHS are those
//                it knows, CODE its answer, LOG its log.
#include <cstddef>
#include <cstring>
#include <string>

#if defined OLD_DRIVER || defined PART_DRIVER
extern "C" {
int cuInit(unsigned) { return 0; }
int cuDriverGetVersion(int* version) {
#ifdef OLD_DRIVER
  *version = 11080;
#else
  *version = 12090;
#endif
  return 0;
}
int cuGetErrorString(int, const char** text) {
  *text = "an error";
  return 0;
}
}
#endif

#ifdef NVRTC
#ifndef ARCHS
#define ARCHS 75, 80, 90
#endif
#ifndef CODE
#define CODE 0
#endif
#ifndef MORE
#define MORE 0
#endif
#ifndef LOG
#define LOG ""
#endif

namespace {

constexpr int known[] = {ARCHS};

// What a program made; each has its own, as threads compile at the same time.
std::string& made(void* program) { return *static_cast<std::string*>(program); }

int size_of(const std::string& text, size_t* size) {
  *size = text.size() + 1;
  return 0;
}
int copy_of(const std::string& text, char* to) {
  std::memcpy(to, text.c_str(), text.size() + 1);
  return 0;
}

}  // namespace

extern "C" {
int nvrtcVersion(int* major, int* minor) {
  *major = NVRTC;
  *minor = 1;
  return 0;
}
int nvrtcCreateProgram(void** program, const char*, const char*, int, const char* const*, const char* const*) {
  *program = new std::string;
  return 0;
}
int nvrtcDestroyProgram(void** program) {
  delete static_cast<std::string*>(*program);
  return 0;
}
int nvrtcCompileProgram(void* program, int count, const char* const* flags) {
  made(program) = "made by " + std::to_string(NVRTC);
  for (int i = 0; i < count; ++i) made(program) += std::string("\n") + flags[i];
  made(program) += std::string(MORE, '\n');
  return CODE;
}
int nvrtcGetProgramLogSize(void*, size_t* size) { return size_of(LOG, size); }
int nvrtcGetProgramLog(void*, char* log) { return copy_of(LOG, log); }
int nvrtcGetCUBINSize(void* program, size_t* size) { return size_of("cubin " + made(program), size); }
int nvrtcGetCUBIN(void* program, char* to) { return copy_of("cubin " + made(program), to); }
int nvrtcGetPTXSize(void* program, size_t* size) { return size_of("ptx " + made(program), size); }
int nvrtcGetPTX(void* program, char* to) { return copy_of("ptx " + made(program), to); }
int nvrtcGetNumSupportedArchs(int* count) {
  *count = static_cast<int>(sizeof known / sizeof known[0]);
  return 0;
}
int nvrtcGetSupportedArchs(int* archs) {
  std::memcpy(archs, known, sizeof known);
  return 0;
}
}
#endif
