# Flags of our own code and of everything linked with it (rooms take them by the target `flags`).
add_library(flags INTERFACE)
target_compile_definitions(flags INTERFACE _GNU_SOURCE)
target_compile_options(flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes
  -Wformat=2 -Wundef -Wpointer-arith -Wwrite-strings -Wvla
  -fno-omit-frame-pointer)
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
  # The bounded copies of error texts are cut on purpose.
  target_compile_options(flags INTERFACE -Wno-format-truncation)
endif()
if(WERROR)
  target_compile_options(flags INTERFACE -Werror)
endif()
if(SANITIZE)
  target_compile_options(flags INTERFACE -fsanitize=${SANITIZE} -fno-sanitize-recover=all)
  target_link_options(flags INTERFACE -fsanitize=${SANITIZE})
  # A third of the time of GNU's: there is a program for each test, with all of the sanitizer in it.
  find_program(LLD ld.lld)
  if(LLD AND CMAKE_C_COMPILER_ID STREQUAL "Clang")
    target_link_options(flags INTERFACE -fuse-ld=lld)
  endif()
elseif(CMAKE_BUILD_TYPE STREQUAL "RelWithDebInfo" OR CMAKE_BUILD_TYPE STREQUAL "Release")
  target_compile_options(flags INTERFACE -fstack-protector-strong -U_FORTIFY_SOURCE
                         -D_FORTIFY_SOURCE=2)
  target_link_options(flags INTERFACE -Wl,-z,relro,-z,now)
endif()
if(FUZZ)
  target_compile_options(flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(COVERAGE)
  # Counters that threads race for come out negative now and then, and gcovr gives up at that.
  target_compile_options(flags INTERFACE --coverage -fprofile-update=atomic)
  target_link_options(flags INTERFACE --coverage)
endif()
