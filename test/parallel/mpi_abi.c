/* Holds native/parallel/mpi_abi.h against the mpi.h of the MPI that compiles this. */
#include <dlfcn.h>
#include <mpi.h>
#include <stdio.h>

#include "parallel/mpi_abi.h"

static int faults = 0;

static void expect(const char* what, int right) {
  if (right) return;
  printf("%s differs\n", what);
  ++faults;
}

int main(void) {
  void* own = dlopen(NULL, RTLD_NOW);
  int begun = 1;
  expect("a call", MPI_Initialized(&begun) == PANNS_MPI_SUCCESS && begun == 0);
  expect("MPI_SUCCESS", PANNS_MPI_SUCCESS == MPI_SUCCESS);
  expect("MPI_THREAD_FUNNELED", PANNS_MPI_THREAD_FUNNELED == MPI_THREAD_FUNNELED);
  expect("room for errors", PANNS_MPI_MOST_TEXT >= MPI_MAX_ERROR_STRING);
  expect("room for versions", PANNS_MPI_MOST_TEXT >= MPI_MAX_LIBRARY_VERSION_STRING);
#ifdef OPEN_MPI
  expect("a handle's size", sizeof(MPI_Comm) == sizeof(void*));
  expect("a request's size", sizeof(MPI_Request) == sizeof(void*));
  expect("MPI_COMM_WORLD", dlsym(own, PANNS_OMPI_COMM_WORLD) == (void*)MPI_COMM_WORLD);
  expect("MPI_FLOAT", dlsym(own, PANNS_OMPI_FLOAT) == (void*)MPI_FLOAT);
  expect("MPI_DOUBLE", dlsym(own, PANNS_OMPI_DOUBLE) == (void*)MPI_DOUBLE);
  expect("MPI_BYTE", dlsym(own, PANNS_OMPI_BYTE) == (void*)MPI_BYTE);
  expect("MPI_SUM", dlsym(own, PANNS_OMPI_SUM) == (void*)MPI_SUM);
  expect("MPI_ERRORS_RETURN", dlsym(own, PANNS_OMPI_ERRORS_RETURN) == (void*)MPI_ERRORS_RETURN);
  expect("MPI_IN_PLACE", PANNS_OMPI_IN_PLACE == MPI_IN_PLACE);
  expect("MPI_STATUS_IGNORE", PANNS_OMPI_STATUS_IGNORE == (void*)MPI_STATUS_IGNORE);
  expect("no mark of the other", dlsym(own, PANNS_MPICH_MARK) == NULL);
  puts("Open MPI");
#else
  expect("a handle's size", sizeof(MPI_Comm) == sizeof(int));
  expect("a request's size", sizeof(MPI_Request) == sizeof(int));
  expect("MPI_COMM_WORLD", PANNS_MPICH_COMM_WORLD == (int)MPI_COMM_WORLD);
  expect("MPI_FLOAT", PANNS_MPICH_FLOAT == (int)MPI_FLOAT);
  expect("MPI_DOUBLE", PANNS_MPICH_DOUBLE == (int)MPI_DOUBLE);
  expect("MPI_BYTE", PANNS_MPICH_BYTE == (int)MPI_BYTE);
  expect("MPI_SUM", PANNS_MPICH_SUM == (int)MPI_SUM);
  expect("MPI_ERRORS_RETURN", PANNS_MPICH_ERRORS_RETURN == (int)MPI_ERRORS_RETURN);
  expect("MPI_IN_PLACE", PANNS_MPICH_IN_PLACE == MPI_IN_PLACE);
  expect("MPI_STATUS_IGNORE", PANNS_MPICH_STATUS_IGNORE == (void*)MPI_STATUS_IGNORE);
  expect("the mark", dlsym(own, PANNS_MPICH_MARK) != NULL);
  puts("MPICH");
#endif
  return faults != 0;
}
