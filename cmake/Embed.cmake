# embed(target name file): the file's bytes become `const unsigned char name[]` and `const size_t
# name_len`, linked into the target. Made anew whenever the file changes.
#
# embed_page(target name files …): files that browsers ask for become `const struct ui_file name[]`
# and `const size_t name_count` (src/ui/ui.h): each as it is, packed by gzip, and with a tag.
set(EMBED_SCRIPT ${CMAKE_CURRENT_LIST_FILE})

function(embed target name file)
  set(made ${CMAKE_CURRENT_BINARY_DIR}/${name}.c)
  add_custom_command(OUTPUT ${made}
    COMMAND ${CMAKE_COMMAND} -DNAME=${name} -DFROM=${CMAKE_CURRENT_SOURCE_DIR}/${file} -DTO=${made}
            -P ${EMBED_SCRIPT}
    DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${file} ${EMBED_SCRIPT})
  target_sources(${target} PRIVATE ${made})
endfunction()

function(embed_page target name)
  set(made ${CMAKE_CURRENT_BINARY_DIR}/${name}.c)
  find_program(GZIP gzip REQUIRED)
  list(TRANSFORM ARGN PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/ OUTPUT_VARIABLE from)
  add_custom_command(OUTPUT ${made}
    COMMAND ${CMAKE_COMMAND} -DNAME=${name} -DPAGE=ON "-DFROM=${from}" -DTO=${made} -DGZIP=${GZIP}
            -P ${EMBED_SCRIPT}
    DEPENDS ${from} ${EMBED_SCRIPT} VERBATIM)
  target_sources(${target} PRIVATE ${made})
endfunction()

if(NOT CMAKE_SCRIPT_MODE_FILE)
  return()
endif()

# The bytes of a file as a C initializer, and how many there are.
function(read_bytes file ret_bytes ret_count)
  file(READ ${file} hex HEX)
  string(LENGTH "${hex}" digits)
  math(EXPR count "${digits} / 2")
  string(REGEX REPLACE "(..)" "0x\\1," bytes "${hex}")
  string(REGEX REPLACE "(................................................................................)" "\\1\n" bytes "${bytes}")
  set(${ret_bytes} "${bytes}" PARENT_SCOPE)
  set(${ret_count} ${count} PARENT_SCOPE)
endfunction()

if(NOT PAGE)
  read_bytes(${FROM} bytes length)
  file(WRITE ${TO} "#include <stddef.h>\nextern const unsigned char ${NAME}[];\nextern const size_t ${NAME}_len;\nconst unsigned char ${NAME}[] = {\n${bytes}};\nconst size_t ${NAME}_len = ${length};\n")
  return()
endif()

set(arrays "#include \"ui.h\"\n")
set(n 0)
foreach(file IN LISTS FROM)
  get_filename_component(called ${file} NAME)
  file(SHA256 ${file} digest)
  string(SUBSTRING ${digest} 0 16 tag)
  execute_process(COMMAND ${GZIP} -9nc ${file} OUTPUT_FILE ${TO}.gz COMMAND_ERROR_IS_FATAL ANY)
  read_bytes(${file} plain plain_count)
  read_bytes(${TO}.gz packed packed_count)
  file(REMOVE ${TO}.gz)
  string(APPEND arrays "static const unsigned char plain_${n}[] = {\n${plain}};\nstatic const unsigned char packed_${n}[] = {\n${packed}};\n")
  string(APPEND rows "    {\"${called}\", \"${tag}\", {(const char *)plain_${n}, ${plain_count}}, {(const char *)packed_${n}, ${packed_count}}},\n")
  math(EXPR n "${n} + 1")
endforeach()
file(WRITE ${TO} "${arrays}const struct ui_file ${NAME}[] = {\n${rows}};\nconst size_t ${NAME}_count = ${n};\n")
