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

// What MPI has to find in the environment; on the event loop, which others read it on.
//
// UCX, which MPICH and Open MPI send by, tests its watch over memory by moving the end of the heap
// up a page and back (ucm_fire_mmap_events). When another thread's malloc has taken that page in
// between, as the event loop's may at any time, it is gone. Without the watch UCX keeps no memory
// registered from one message to the next.
void prepare_environment();

// Joins the processes that a launcher (mpirun, srun) started: once in the life of a process, as MPI
// has it.
// Throws ERR_PANNS_PARALLEL with every library tried, ERR_PANNS_BUSY when MPI is in use already.
std::unique_ptr<backends::Collective> open_mpi(const MpiOptions& options);

}  // namespace panns::parallel
