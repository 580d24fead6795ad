// What the driver and the compiler say, on the command line: the native code alone, with one small kernel.
//   finder cards | card N | allocate BYTES | retained | check CODE | hash
//   finder compile THREADS SM KEEP DRIVER IMAGE [FOLDER...]     every thread compiles, and each says its facts
// A line `key value` for each fact. An error is the line `error KIND`, then its message, and exit code 1.
#include <barrier>
#include <cstddef>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"
#include "cuda/compile.h"
#include "cuda/sha256.h"

namespace cuda {

const char* source() {
  const char* given = std::getenv("TEST_SOURCE");
  if (given != nullptr) return given;
  return "#include \"values.h\"\n"
         "extern \"C\" __global__ void twice(float* x) { x[threadIdx.x] = kTwo * x[threadIdx.x]; }\n";
}

const std::vector<Source> kSources = {{"kernels.cuh", source()}, {"values.h", "constexpr float kTwo = 2;\n"}};

}  // namespace cuda

namespace {

void show(const cuda::Card& card) {
  std::cout << "card " << card.ordinal << " " << card.name << " sm " << card.sm << " uuid " << card.uuid << " bytes "
            << card.total_bytes << " shared " << card.shared_bytes << " multiprocessors " << card.multiprocessors
            << " gb_s " << card.peak_gb_s << "\n";
}

// Opens the card once, and says what the driver answers to one release more than was retained.
void ask_retained(const std::shared_ptr<const cuda::Driver>& driver) {
  try {
    const cuda::Session session(driver, cuda::card(*driver, 0));
  } catch (const std::exception& error) {
    std::cout << "failed " << error.what() << "\n";
  }
  std::cout << "released " << driver->DevicePrimaryCtxRelease(0) << "\n";
}

void ask_driver(const std::string& command, char** arguments) {
  const auto driver = cuda::Driver::load();
  std::cout << "library " << driver->library << "\nversion " << driver->version << "\n";
  if (command == "cards") {
    for (const cuda::Card& card : cuda::cards(*driver)) show(card);
  } else if (command == "card") {
    show(cuda::card(*driver, std::atoi(arguments[0])));
  } else if (command == "retained") {
    ask_retained(driver);
  } else if (command == "check") {
    driver->check(std::atoi(arguments[0]), "trying", 1000000);
  } else if (command == "allocate") {
    const auto session = std::make_shared<const cuda::Session>(driver, cuda::card(*driver, 0));
    const cuda::CardMemory memory(session, std::strtoull(arguments[0], nullptr, 10), "the cache");
    std::cout << "held " << memory.size() << "\nfree " << session->free_bytes() << "\n";
  }
}

void compile(char** arguments) {
  cuda::CompileRequest request;
  request.sm = std::atoi(arguments[1]);
  request.keep = arguments[2];
  request.driver_version = std::atoi(arguments[3]);
  for (char** folder = arguments + 5; *folder != nullptr; ++folder) request.libraries.emplace_back(*folder);
  std::vector<cuda::Compiled> made(static_cast<size_t>(std::atoi(arguments[0])));
  if (made.size() == 1) {
    made[0] = cuda::compile(request);  // errors reach main
  } else {
    std::barrier together(static_cast<std::ptrdiff_t>(made.size()));
    std::vector<std::jthread> threads;
    for (cuda::Compiled& one : made)
      threads.emplace_back([&] {
        together.arrive_and_wait();
        one = cuda::compile(request);
      });
  }
  std::ofstream(arguments[4], std::ios::binary) << made[0].image;
  for (const cuda::Compiled& one : made)
    std::cout << "compiler " << one.compiler << "\ncached " << one.cached << "\nptx " << one.ptx << "\nnote " << one.note
              << "\n";
}

int failed(const char* kind, const std::exception& error) {
  std::cout << "error " << kind << "\n" << error.what() << "\n";
  return 1;
}

}  // namespace

int main(int count, char** arguments) try {
  const std::string command = count > 1 ? arguments[1] : "";
  if (command == "compile" && count > 6) {
    compile(arguments + 2);
  } else if (command == "hash") {
    std::cout << cuda::sha256({std::istreambuf_iterator<char>(std::cin), {}}) << "\n";
  } else {
    ask_driver(command, arguments + 2);
  }
  return 0;
} catch (const cuda::Unusable& error) {
  return failed("Unusable", error);
} catch (const cuda::Full& error) {
  return failed("Full", error);
} catch (const std::exception& error) {
  return failed("other", error);
}
