# Kernel sources and the flags of each folder. Sets KERNEL_<ISA>_SOURCES (absolute paths) and KERNEL_<ISA>_FLAGS, and
# KERNEL_SOURCES with the flags already put on each file: a target only has to list KERNEL_SOURCES.
#
# -ffp-contract=off: a fused multiply-add happens only where the source asks for one, so all ISAs give the same bits.
# -fno-math-errno: sqrtf is one instruction. Neither changes a result. -ffast-math is never allowed here.
set(KERNEL_COMMON_FLAGS -ffp-contract=off -fno-math-errno)

set(KERNEL_SCALAR_SOURCES
  ${CMAKE_CURRENT_LIST_DIR}/dispatch.cpp
  ${CMAKE_CURRENT_LIST_DIR}/scalar/attention.cpp
  ${CMAKE_CURRENT_LIST_DIR}/scalar/delta.cpp
  ${CMAKE_CURRENT_LIST_DIR}/scalar/fill.cpp
  ${CMAKE_CURRENT_LIST_DIR}/scalar/linear.cpp
  ${CMAKE_CURRENT_LIST_DIR}/scalar/rounding.cpp
  ${CMAKE_CURRENT_LIST_DIR}/scalar/vector.cpp)
set(KERNEL_SCALAR_FLAGS ${KERNEL_COMMON_FLAGS})
set(KERNEL_AVX2_SOURCES)
set(KERNEL_AVX2_FLAGS ${KERNEL_COMMON_FLAGS} -mavx2 -mfma -mf16c)
set(KERNEL_AVX512_SOURCES)
set(KERNEL_AVX512_FLAGS ${KERNEL_AVX2_FLAGS} -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni
                        -mprefer-vector-width=512)
# One source, two encodings: avxvnni_evex/ is avxvnni/ for processors that have the dot product as part of AVX-512 only.
set(KERNEL_AVXVNNI_SOURCES)
set(KERNEL_AVXVNNI_FLAGS ${KERNEL_AVX2_FLAGS} -mavxvnni)
set(KERNEL_AVXVNNI_EVEX_SOURCES)
set(KERNEL_AVXVNNI_EVEX_FLAGS ${KERNEL_AVX2_FLAGS} -mavx512f -mavx512vl -mavx512vnni -mprefer-vector-width=256)
set(NEON_MACHINE -march=armv8.2-a+dotprod)
if(DEFINED ZIG_TARGET)  # tools/wheels: zig has words of its own for processors
  set(NEON_MACHINE -mcpu=generic+v8_2a+dotprod)
endif()
set(KERNEL_NEON_SOURCES)
set(KERNEL_NEON_FLAGS ${KERNEL_COMMON_FLAGS} ${NEON_MACHINE})
set(KERNEL_NEON_I8MM_SOURCES)
set(KERNEL_NEON_I8MM_FLAGS ${KERNEL_COMMON_FLAGS} ${NEON_MACHINE}+i8mm)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")  # it would hoist all loads of a loop to its front, and run out of registers
  list(APPEND KERNEL_NEON_FLAGS -fno-schedule-insns)
  list(APPEND KERNEL_NEON_I8MM_FLAGS -fno-schedule-insns)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")  # the intrinsics headers of GCC 12 leave "undefined" vectors uninitialized
  foreach(isa AVX2 AVX512 AVXVNNI AVXVNNI_EVEX)
    list(APPEND KERNEL_${isa}_FLAGS -Wno-uninitialized -Wno-maybe-uninitialized)
  endforeach()
endif()

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(KERNEL_AVX2_SOURCES
    ${CMAKE_CURRENT_LIST_DIR}/avx2/attention.cpp
    ${CMAKE_CURRENT_LIST_DIR}/avx2/delta.cpp
    ${CMAKE_CURRENT_LIST_DIR}/avx2/fill.cpp
    ${CMAKE_CURRENT_LIST_DIR}/avx2/kv_put.cpp
    ${CMAKE_CURRENT_LIST_DIR}/avx2/linear_bf16.cpp
    ${CMAKE_CURRENT_LIST_DIR}/avx2/linear_int.cpp
    ${CMAKE_CURRENT_LIST_DIR}/avx2/rounding.cpp
    ${CMAKE_CURRENT_LIST_DIR}/avx2/vector.cpp)
  set(KERNEL_AVX512_SOURCES
    ${CMAKE_CURRENT_LIST_DIR}/avx512/attention.cpp
    ${CMAKE_CURRENT_LIST_DIR}/avx512/delta.cpp
    ${CMAKE_CURRENT_LIST_DIR}/avx512/fill.cpp
    ${CMAKE_CURRENT_LIST_DIR}/avx512/kv_put.cpp
    ${CMAKE_CURRENT_LIST_DIR}/avx512/linear_bf16.cpp
    ${CMAKE_CURRENT_LIST_DIR}/avx512/linear_int.cpp
    ${CMAKE_CURRENT_LIST_DIR}/avx512/vector.cpp)
  set(KERNEL_AVXVNNI_SOURCES
    ${CMAKE_CURRENT_LIST_DIR}/avxvnni/attention.cpp
    ${CMAKE_CURRENT_LIST_DIR}/avxvnni/fill.cpp
    ${CMAKE_CURRENT_LIST_DIR}/avxvnni/linear_int.cpp)
  set(KERNEL_AVXVNNI_EVEX_SOURCES
    ${CMAKE_CURRENT_LIST_DIR}/avxvnni_evex/attention.cpp
    ${CMAKE_CURRENT_LIST_DIR}/avxvnni_evex/fill.cpp
    ${CMAKE_CURRENT_LIST_DIR}/avxvnni_evex/linear_int.cpp)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64|ARM64)$")
  set(KERNEL_NEON_SOURCES
    ${CMAKE_CURRENT_LIST_DIR}/neon/attention.cpp
    ${CMAKE_CURRENT_LIST_DIR}/neon/delta.cpp
    ${CMAKE_CURRENT_LIST_DIR}/neon/fill.cpp
    ${CMAKE_CURRENT_LIST_DIR}/neon/linear_bf16.cpp
    ${CMAKE_CURRENT_LIST_DIR}/neon/linear_int.cpp
    ${CMAKE_CURRENT_LIST_DIR}/neon/vector.cpp)
  set(KERNEL_NEON_I8MM_SOURCES
    ${CMAKE_CURRENT_LIST_DIR}/neon_i8mm/fill.cpp
    ${CMAKE_CURRENT_LIST_DIR}/neon_i8mm/linear_int.cpp)
endif()

set(KERNEL_SOURCES)
foreach(isa SCALAR AVX2 AVXVNNI AVXVNNI_EVEX AVX512 NEON NEON_I8MM)
  if(KERNEL_${isa}_SOURCES)
    list(APPEND KERNEL_SOURCES ${KERNEL_${isa}_SOURCES})
    set_source_files_properties(${KERNEL_${isa}_SOURCES} PROPERTIES COMPILE_OPTIONS "${KERNEL_${isa}_FLAGS}")
  endif()
endforeach()
