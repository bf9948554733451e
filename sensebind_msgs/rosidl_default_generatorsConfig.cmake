# For build_in_venv.sh: code for C and Python alone. Nothing in a virtual environment uses the code for C++, whose
# compilation would take most of the time.
find_package(rosidl_core_generators REQUIRED)
list(FILTER AMENT_EXTENSIONS_rosidl_generate_idl_interfaces EXCLUDE REGEX "_cpp:")
