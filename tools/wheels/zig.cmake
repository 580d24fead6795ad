# Compilers of the `ziglang` package, for any machine: ZIG_TARGET names it, such as `x86_64-linux-gnu.2.28`. libc++ is
# linked in, so a wheel asks for the C library alone.
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES ZIG_TARGET ZIG_PYTHON)
string(REGEX MATCH "^[^-]+" CMAKE_SYSTEM_PROCESSOR "${ZIG_TARGET}")
if(ZIG_TARGET MATCHES "macos")
  set(CMAKE_SYSTEM_NAME Darwin)
else()
  set(CMAKE_SYSTEM_NAME Linux)
endif()
# -I: a build of pip hides the packages of the Python that runs it.
set(zig "${ZIG_PYTHON}" -I -m ziglang)
set(CMAKE_CXX_COMPILER ${zig} c++ -target ${ZIG_TARGET})
set(CMAKE_C_COMPILER ${zig} cc -target ${ZIG_TARGET})
# nanobind's sources name stderr, which libc++ does not declare for them.
set(CMAKE_CXX_FLAGS_INIT "-include cstdio -g0")
set(CMAKE_MODULE_LINKER_FLAGS_INIT "-s")
string(JOIN " " zig ${zig})
foreach(language C CXX)
  set(CMAKE_${language}_ARCHIVE_CREATE "${zig} ar qc <TARGET> <OBJECTS>")
  set(CMAKE_${language}_ARCHIVE_FINISH "${zig} ranlib <TARGET>")
endforeach()
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
