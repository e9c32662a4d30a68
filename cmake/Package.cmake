# One folder that runs on any x86-64 Linux with a glibc as new as what its libraries ask for (2.34 of
# those in Debian 12, a test says):
#
#   bootstrap          what the platform or the image starts
#   comfy-agent        looks for its libraries in lib/ beside itself first
#   lib/               all of them but glibc's own
#
# `cmake --install BUILD --strip --prefix DIR` makes the folder, cpack makes function.zip of it.
# RPATH rather than RUNPATH: it also holds for what the libraries themselves need.
set_target_properties(comfy-agent PROPERTIES INSTALL_RPATH "$ORIGIN/lib")
target_link_options(comfy-agent PRIVATE -Wl,--disable-new-dtags)
install(PROGRAMS bootstrap DESTINATION .)
install(TARGETS comfy-agent RUNTIME_DEPENDENCY_SET libraries RUNTIME DESTINATION .)
install(RUNTIME_DEPENDENCY_SET libraries
        PRE_EXCLUDE_REGEXES "^(ld-linux.*|lib(c|m|dl|rt|pthread|resolv|util))\\.so"
        DIRECTORIES /lib/${CMAKE_LIBRARY_ARCHITECTURE} /usr/lib/${CMAKE_LIBRARY_ARCHITECTURE}
        LIBRARY DESTINATION lib)
# What libmariadb loads by name: the ways in which accounts of MySQL 8 (and others) log in.
if(TARGET PkgConfig::MARIADB)
  pkg_get_variable(MARIADB_PLUGINS libmariadb plugindir)
  if(NOT MARIADB_PLUGINS)
    set(MARIADB_PLUGINS ${MARIADB_LIBDIR}/libmariadb3/plugin) # Debian's, untold
  endif()
  install(FILES ${MARIADB_PLUGINS}/caching_sha2_password.so ${MARIADB_PLUGINS}/sha256_password.so
                ${MARIADB_PLUGINS}/client_ed25519.so DESTINATION lib)
endif()
# No links: nobody promises that whoever unpacks the ZIP makes them.
install(CODE [[
  file(GLOB libraries "$ENV{DESTDIR}${CMAKE_INSTALL_PREFIX}/lib/*.so*")
  set(linked "")
  foreach(name ${libraries})
    if(IS_SYMLINK "${name}")
      file(REAL_PATH "${name}" file)
      file(REMOVE "${name}")
      file(COPY_FILE "${file}" "${name}")
      list(APPEND linked "${file}")
    endif()
  endforeach()
  if(linked)
    file(REMOVE ${linked})
  endif()
]])

set(CPACK_GENERATOR ZIP)
set(CPACK_PACKAGE_FILE_NAME function)
set(CPACK_INCLUDE_TOPLEVEL_DIRECTORY OFF)
set(CPACK_STRIP_FILES ON)
include(CPack)
