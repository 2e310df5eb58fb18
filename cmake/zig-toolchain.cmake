# The C compiler is zig from the Python package ziglang: one for every target, with any glibc's symbols to link
# against. The target is an option of each of our libraries and programs, not of the toolchain.
if(NOT RUNAI_ZIG)
  find_program(RUNAI_PYTHON NAMES python3 python HINTS "${Python_EXECUTABLE}" REQUIRED)
  if(Python_EXECUTABLE)
    set(RUNAI_PYTHON "${Python_EXECUTABLE}")
  endif()
  execute_process(
    COMMAND "${RUNAI_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/locate.py"
    OUTPUT_VARIABLE found
    COMMAND_ERROR_IS_FATAL ANY)
  list(GET found 0 zig)
  list(GET found 1 headers)
  set(RUNAI_ZIG "${zig}" CACHE FILEPATH "The zig program")
  set(RUNAI_HEADERS "${headers}" CACHE PATH "The folder with cuda.h and nvml.h")
endif()
set(CMAKE_C_COMPILER "${RUNAI_ZIG}" cc)
set(CMAKE_ASM_COMPILER "${RUNAI_ZIG}" cc)
# CMake would link programs for this machine to learn about the compiler, for which zig first builds a whole C
# library that nothing else here needs: 40 s.
set(CMAKE_C_COMPILER_ID_TEST_FLAGS_FIRST "-c")
set(CMAKE_C_COMPILER_FORCED TRUE)
set(CMAKE_ASM_COMPILER_FORCED TRUE)
set(CMAKE_SIZEOF_VOID_P 8)
