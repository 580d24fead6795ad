#include "core/probe.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <set>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

#include "core/error.h"
#include "core/memory.h"
#include "core/pool.h"

namespace {

#if defined(__linux__)

std::string read_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// A container may be given two CPUs' worth of time on a machine of sixty-four. 0 when there is no such limit.
size_t quota() {
  double limit = 0, period = 0;
  const std::string line = read_line("/sys/fs/cgroup/cpu.max");
  if (std::sscanf(line.c_str(), "%lf %lf", &limit, &period) != 2 || limit <= 0 || period <= 0) return 0;
  return static_cast<size_t>(std::ceil(limit / period));
}

size_t count_cores() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 0;
  std::set<std::string> cores;  // threads of one core name the same siblings
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    const std::string name = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list";
    const std::string siblings = read_line(name);
    cores.insert(siblings.empty() ? "cpu " + std::to_string(cpu) : siblings);
  }
  const size_t limit = quota();
  return limit == 0 ? cores.size() : std::min(cores.size(), limit);
}

#else

size_t count_cores() { return 0; }

#endif

// Sixteen bytes at a time is the least that every x86-64 and ARM machine has, and more than memory can deliver.
using Word = uint64_t __attribute__((vector_size(16)));

}  // namespace

uint64_t sum_words(const uint8_t* from, const uint8_t* to) {
  Word a{}, b{}, c{}, d{};
  for (; from < to; from += kLine) {
    const auto* words = reinterpret_cast<const Word*>(from);
    a += words[0];
    b += words[1];
    c += words[2];
    d += words[3];
  }
  a += b + c + d;
  return a[0] + a[1];
}

size_t physical_cores() {
  const size_t cores = count_cores();
  return std::max<size_t>(1, cores != 0 ? cores : std::thread::hardware_concurrency());
}

double read_bandwidth(size_t bytes, size_t threads) {
  if (threads == 0) threads = physical_cores();
  const size_t lines = bytes / kLine;
  REQUIRE(lines >= threads, "%zu bytes are too few for %zu threads", bytes, threads);
  const Memory memory(lines * kLine, "the bandwidth probe");
  Pool pool(threads);
  std::atomic<uint64_t> sink{0};
  const auto part = [&](size_t id) { return memory.data() + lines * id / threads * kLine; };
  pool.each([&](size_t id) { std::memset(part(id), 1, static_cast<size_t>(part(id + 1) - part(id))); });
  double best = 0;
  constexpr int passes = 6;
  for (int pass = 0; pass < passes; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    pool.each([&](size_t id) { sink += sum_words(part(id), part(id + 1)); });
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    best = std::max(best, static_cast<double>(lines * kLine) / taken.count());
  }
  return best;
}

namespace {

// ARM tells numbers only. The implementers that make cores with dot products:
const char* implementer(const std::string& number) {
  const struct {
    const char *number, *name;
  } known[] = {{"0x41", "ARM"},     {"0x46", "Fujitsu"},  {"0x48", "HiSilicon"}, {"0x4e", "NVIDIA"},
               {"0x51", "Qualcomm"}, {"0x61", "Apple"},   {"0x6d", "Microsoft"}, {"0xc0", "Ampere"}};
  for (const auto& one : known)
    if (number == one.number) return one.name;
  return "unknown";
}

}  // namespace

double int8_peak(const KernelTable& kernels, size_t threads) {
  Pool pool(threads != 0 ? threads : physical_cores());
  constexpr size_t rounds = 100'000;  // about a millisecond
  constexpr int passes = 10;
  const double products = static_cast<double>(kernels.int8_peak(rounds)) * static_cast<double>(pool.threads());
  double best = 0;
  for (int pass = 0; pass < passes; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    pool.each([&](size_t) { kernels.int8_peak(rounds); });
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    best = std::max(best, 2 * products / taken.count());
  }
  return best;
}

CpuName cpu_name(const char* cpuinfo) {
  CpuName name{"unknown", "unknown"};
  std::ifstream file(cpuinfo);
  for (std::string line; std::getline(file, line) && !line.empty();) {  // the first processor's paragraph
    const size_t colon = line.find(": ");
    if (colon == std::string::npos) continue;
    const std::string value = line.substr(colon + 2);
    if (line.starts_with("vendor_id")) name.vendor = value;
    if (line.starts_with("model name")) name.model = value;
    if (line.starts_with("CPU implementer")) name.vendor = implementer(value);
    if (line.starts_with("CPU part")) name.model = "part " + value;
  }
  return name;
}
