// The constants of mpi.h that are used here, as the two binary interfaces have them.
// test/parallel/mpi_abi.c holds them against the headers of both.
#pragma once

#ifdef __cplusplus
#include <cstdint>
#else
#include <stdint.h>
#endif

// The same in both.
#define PANNS_MPI_SUCCESS 0
#define PANNS_MPI_THREAD_FUNNELED 1

// MPICH: handles are ints.
#define PANNS_MPICH_COMM_WORLD 0x44000000
#define PANNS_MPICH_FLOAT 0x4c00040a
#define PANNS_MPICH_DOUBLE 0x4c00080b
#define PANNS_MPICH_BYTE 0x4c00010d
#define PANNS_MPICH_SUM 0x58000003
#define PANNS_MPICH_ERRORS_RETURN 0x54000001
#define PANNS_MPICH_IN_PLACE ((void*)(intptr_t)-1)
#define PANNS_MPICH_STATUS_IGNORE ((void*)(intptr_t)1)
// A function that only this interface has: MPICH's library for the interface of MPI 5 lacks it.
#define PANNS_MPICH_MARK "MPIR_Dup_fn"

// Open MPI: handles are addresses of objects that the library exports under these names.
#define PANNS_OMPI_COMM_WORLD "ompi_mpi_comm_world"
#define PANNS_OMPI_FLOAT "ompi_mpi_float"
#define PANNS_OMPI_DOUBLE "ompi_mpi_double"
#define PANNS_OMPI_BYTE "ompi_mpi_byte"
#define PANNS_OMPI_SUM "ompi_mpi_op_sum"
#define PANNS_OMPI_ERRORS_RETURN "ompi_mpi_errors_return"
#define PANNS_OMPI_IN_PLACE ((void*)(intptr_t)1)
#define PANNS_OMPI_STATUS_IGNORE ((void*)(intptr_t)0)

// Room for the texts of either.
#define PANNS_MPI_MOST_TEXT 8192
