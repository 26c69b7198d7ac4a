// The functions of MPI that are used here, by either of the two binary interfaces.
#pragma once

#include <dlfcn.h>

#include <string>
#include <type_traits>

#include "core/error.h"
#include "parallel/mpi_abi.h"

namespace panns::parallel {

// Handles are addresses in one interface and ints in the other; requests are handles.
template <typename Handle>
struct Mpi {
  Handle world, float32, float64, byte, plus, errors_return;
  void *in_place, *status_ignore;

  int (*init_thread)(int*, char***, int, int*);
  int (*finalize)();
  int (*comm_rank)(Handle, int*);
  int (*comm_size)(Handle, int*);
  int (*comm_set_errhandler)(Handle, Handle);
  int (*error_string)(int, char*, int*);
  int (*get_library_version)(char*, int*);
  int (*iallreduce)(const void*, void*, int, Handle, Handle, Handle, Handle*);
  int (*ibcast)(void*, int, Handle, int, Handle, Handle*);
  int (*test)(Handle*, int*, void*);

  // Throws naming the function that the library lacks.
  void bind(void* library, const std::string& path) {
    const auto find = [&](const char* name, auto& function) {
      function =
          reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
      PANNS_CHECK(function != nullptr, "ERR_PANNS_PARALLEL", path,
                  "expected MPI 3.0 or newer; it has no function ", name);
    };
    find("MPI_Init_thread", init_thread);
    find("MPI_Finalize", finalize);
    find("MPI_Comm_rank", comm_rank);
    find("MPI_Comm_size", comm_size);
    find("MPI_Comm_set_errhandler", comm_set_errhandler);
    find("MPI_Error_string", error_string);
    find("MPI_Get_library_version", get_library_version);
    find("MPI_Iallreduce", iallreduce);
    find("MPI_Ibcast", ibcast);
    find("MPI_Test", test);
  }

  std::string text_of(int status) const {
    std::string text(PANNS_MPI_MOST_TEXT, '\0');
    int length = 0;
    error_string(status, text.data(), &length);
    text.resize(static_cast<size_t>(length));
    return text;
  }
};

// Open MPI's, whose handles are null where the library is another's.
inline Mpi<void*> open_mpi_interface(void* library) {
  const auto object = [&](const char* name) { return dlsym(library, name); };
  Mpi<void*> mpi{};
  mpi.world = object(PANNS_OMPI_COMM_WORLD);
  mpi.float32 = object(PANNS_OMPI_FLOAT);
  mpi.float64 = object(PANNS_OMPI_DOUBLE);
  mpi.byte = object(PANNS_OMPI_BYTE);
  mpi.plus = object(PANNS_OMPI_SUM);
  mpi.errors_return = object(PANNS_OMPI_ERRORS_RETURN);
  mpi.in_place = PANNS_OMPI_IN_PLACE;
  mpi.status_ignore = PANNS_OMPI_STATUS_IGNORE;
  return mpi;
}

inline Mpi<int> mpich_interface() {
  Mpi<int> mpi{};
  mpi.world = PANNS_MPICH_COMM_WORLD;
  mpi.float32 = PANNS_MPICH_FLOAT;
  mpi.float64 = PANNS_MPICH_DOUBLE;
  mpi.byte = PANNS_MPICH_BYTE;
  mpi.plus = PANNS_MPICH_SUM;
  mpi.errors_return = PANNS_MPICH_ERRORS_RETURN;
  mpi.in_place = PANNS_MPICH_IN_PLACE;
  mpi.status_ignore = PANNS_MPICH_STATUS_IGNORE;
  return mpi;
}

}  // namespace panns::parallel
