# The cuda backend. BB_CUDA: on needs nvcc 12 or later, auto takes it where there is one, off builds without.
set(BB_CUDA off CACHE STRING "Build the cuda device: on, auto (where there is an nvcc) or off")
set(BB_CUDA_ARCHITECTURES 80-real;89-real;90a-real;100-real CACHE STRING "What the cuda device is compiled for")

set(BB_CUDA_FOUND FALSE)
string(TOLOWER "${BB_CUDA}" BB_CUDA_WANTED)
if(BB_CUDA_WANTED MATCHES "^(on|auto|1|true|yes)$")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_ARCHITECTURES ${BB_CUDA_ARCHITECTURES})
    enable_language(CUDA)
    set(BB_CUDA_FOUND TRUE)
  elseif(NOT BB_CUDA_WANTED STREQUAL "auto")
    message(FATAL_ERROR "BB_CUDA=${BB_CUDA}: no nvcc that works; scripts/install-deps --cuda gets one, "
      "-DCMAKE_CUDA_COMPILER=PATH names it, -DBB_CUDA=off builds without")
  endif()
endif()

if(BB_CUDA_FOUND)
  file(GLOB BB_CUDA_SOURCES CONFIGURE_DEPENDS src/ops/cuda/*.cu)
  add_library(bb_cuda_objects OBJECT ${BB_CUDA_SOURCES})
  set_target_properties(bb_cuda_objects PROPERTIES CUDA_STANDARD 17 CUDA_VISIBILITY_PRESET hidden)
  # No contraction of products and sums: ops/cuda/kernel.h.
  target_compile_options(bb_cuda_objects PRIVATE -fmad=false -Xcompiler=-Wall,-Wextra
    $<$<BOOL:${BB_WERROR}>:-Werror=all-warnings>)
  # The runtime is linked in; it finds the driver when it is first called, so that the program runs without one.
  find_package(CUDAToolkit REQUIRED)
  list(APPEND BB_LIBRARIES CUDA::cudart_static)
else()
  add_library(bb_cuda_objects OBJECT src/ops/cuda/missing.c)
  target_link_libraries(bb_cuda_objects PRIVATE bb_flags)
endif()
set_target_properties(bb_cuda_objects PROPERTIES POSITION_INDEPENDENT_CODE ON C_VISIBILITY_PRESET hidden)
target_include_directories(bb_cuda_objects PRIVATE src include)
message(STATUS "cuda device: ${BB_CUDA_FOUND}")
