// MPI, opened at run time: whoever trains in one process needs none.
//
// The binary interfaces of Open MPI (libmpi.so.40) and of MPICH and its kin (libmpi.so.12: Intel
// MPI, MVAPICH, Cray) are served; a function or two tells them apart, as their handles differ in
// kind.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backends/collective.h"

namespace panns::parallel {

struct MpiOptions {
  std::vector<std::string> libraries;  // paths or names to try, in order
  int expected_size = 0;               // as the launcher says; another one is an error
  double timeout_seconds = 0;          // how long to wait for the others; 0: without end
};

// Joins the processes that a launcher (mpirun, srun) started: once in the life of a process, as MPI
// has it.
// Throws ERR_PANNS_PARALLEL with every library tried, ERR_PANNS_BUSY when MPI is in use already.
std::unique_ptr<backends::Collective> open_mpi(const MpiOptions& options);

}  // namespace panns::parallel
