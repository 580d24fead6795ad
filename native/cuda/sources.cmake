# The CUDA backend: host code, and the kernels' sources as text, for NVIDIA's compiler on the user's machine.
set(CUDA_KERNEL_FILES kernels.cuh dev.cuh args.h math.cuh quantize.cuh rows.cuh linear.cuh kv.cuh attend.cuh)
set(CUDA_EMBEDDED ${CMAKE_CURRENT_BINARY_DIR}/cuda_sources.cpp)
set(CUDA_EMBEDDED_TEXT "#include \"cuda/compile.h\"\nnamespace cuda {\nconst std::vector<Source> kSources = {\n")
foreach(file ${CUDA_KERNEL_FILES})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/${file})
  file(READ ${CMAKE_CURRENT_LIST_DIR}/${file} text)
  # A literal may have 64 KB by the standard, and compilers take more; none of the files is as long.
  string(APPEND CUDA_EMBEDDED_TEXT "{\"${file}\", R\"~~~(${text})~~~\"},\n")
endforeach()
string(APPEND CUDA_EMBEDDED_TEXT "};\n}  // namespace cuda\n")
file(CONFIGURE OUTPUT ${CUDA_EMBEDDED} CONTENT "@CUDA_EMBEDDED_TEXT@" @ONLY)

set(CUDA_SOURCES
  ${CMAKE_CURRENT_LIST_DIR}/compile.cpp
  ${CMAKE_CURRENT_LIST_DIR}/device.cpp
  ${CMAKE_CURRENT_LIST_DIR}/driver.cpp
  ${CMAKE_CURRENT_LIST_DIR}/kernels.cpp
  ${CMAKE_CURRENT_LIST_DIR}/launches.cpp
  ${CMAKE_CURRENT_LIST_DIR}/model.cpp
  ${CMAKE_CURRENT_LIST_DIR}/repack.cpp
  ${CMAKE_CURRENT_LIST_DIR}/sha256.cpp
  ${CUDA_EMBEDDED})
