# Everything comes from Debian 12's packages; `./dev setup` installs them.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
pkg_check_modules(UV REQUIRED IMPORTED_TARGET libuv)
pkg_check_modules(CURL REQUIRED IMPORTED_TARGET libcurl)
pkg_check_modules(NETTLE REQUIRED IMPORTED_TARGET nettle)

# wslay has no pkg-config file in Debian 12.
find_path(WSLAY_INCLUDE wslay/wslay.h REQUIRED)
find_library(WSLAY_LIBRARY wslay REQUIRED)
add_library(wslay INTERFACE)
target_include_directories(wslay SYSTEM INTERFACE ${WSLAY_INCLUDE})
target_link_libraries(wslay INTERFACE ${WSLAY_LIBRARY})

# llhttp: a system library where there is one (Debian 13, Alpine); Debian 12 ships its sources in
# the package node-llhttp. They are compiled with their authors' idea of warnings, not ours.
pkg_check_modules(LLHTTP QUIET IMPORTED_TARGET libllhttp)
if(LLHTTP_FOUND)
  add_library(llhttp INTERFACE)
  target_link_libraries(llhttp INTERFACE PkgConfig::LLHTTP)
else()
  find_path(LLHTTP_SOURCES llhttp.c PATHS /usr/share/llhttp NO_DEFAULT_PATH REQUIRED)
  find_path(LLHTTP_INCLUDE llhttp.h PATHS /usr/share/include/llhttp NO_DEFAULT_PATH REQUIRED)
  add_library(llhttp STATIC ${LLHTTP_SOURCES}/llhttp.c ${LLHTTP_SOURCES}/api.c
              ${LLHTTP_SOURCES}/http.c)
  target_include_directories(llhttp SYSTEM PUBLIC ${LLHTTP_INCLUDE})
endif()

# A store that needs a library is built where that is found. ON: it must be there; OFF: left out.
set(STORE_REDIS AUTO CACHE STRING "The Redis store (hiredis): AUTO, ON or OFF")
if(STORE_REDIS STREQUAL ON)
  pkg_check_modules(HIREDIS REQUIRED IMPORTED_TARGET hiredis)
elseif(STORE_REDIS)
  pkg_check_modules(HIREDIS IMPORTED_TARGET hiredis)
endif()
set(STORE_MYSQL AUTO CACHE STRING "The MySQL store (libmariadb): AUTO, ON or OFF")
if(STORE_MYSQL STREQUAL ON)
  pkg_check_modules(MARIADB REQUIRED IMPORTED_TARGET libmariadb)
elseif(STORE_MYSQL)
  pkg_check_modules(MARIADB IMPORTED_TARGET libmariadb)
endif()
# libmariadb's OpenSSL, where it has one: its list of errors is looked after (store_mysql_link.c).
if(TARGET PkgConfig::MARIADB)
  pkg_check_modules(CRYPTO IMPORTED_TARGET libcrypto)
endif()
