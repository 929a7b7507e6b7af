# SPDX-License-Identifier: MIT
# `pip wheel .` (pyproject.toml): the component `python` is the package's compiled part, which is the shared library and what cffi is told
# of it.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
file(GLOB BB_HEADERS CONFIGURE_DEPENDS include/bitbyte/*.h)
add_custom_command(OUTPUT _declarations.py DEPENDS python/declarations.py ${BB_HEADERS}
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/python/declarations.py ${CMAKE_CURRENT_SOURCE_DIR}/include _declarations.py)
add_custom_target(bitbyte_python DEPENDS _declarations.py)
# One file: a wheel has no symbolic links.
set_property(TARGET bitbyte_shared PROPERTY VERSION)
set_property(TARGET bitbyte_shared PROPERTY SOVERSION)
install(TARGETS bitbyte_shared LIBRARY DESTINATION bitbyte COMPONENT python)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/_declarations.py DESTINATION bitbyte COMPONENT python)
