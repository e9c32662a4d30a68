# add_room(name SOURCES … [LINKS rooms and libraries whose headers users of this room see too]
#          [PRIVATE libraries that only this room's .c files see])
function(add_room name)
  cmake_parse_arguments(ROOM "" "" "SOURCES;LINKS;PRIVATE" ${ARGN})
  add_library(${name} STATIC ${ROOM_SOURCES})
  target_include_directories(${name} PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
  target_link_libraries(${name} PUBLIC flags ${ROOM_LINKS} PRIVATE ${ROOM_PRIVATE})
endfunction()

# add_unit_test(name room [more sources or libraries …]): tests/unit/<name>.c, run as its own test.
function(add_unit_test name)
  pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)
  add_executable(${name} ${name}.c)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests/unit)
  target_link_libraries(${name} PRIVATE flags ${ARGN} PkgConfig::CMOCKA)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT 120)
endfunction()
