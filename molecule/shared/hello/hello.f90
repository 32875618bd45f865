! Copyright (c) The turnkey.hpc founders
! GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
! SPDX-License-Identifier: GPL-3.0-or-later
program hello
  use mpi
  integer :: rank, length, ierror
  character(len=MPI_MAX_PROCESSOR_NAME) :: name
  call MPI_Init(ierror)
  call MPI_Comm_rank(MPI_COMM_WORLD, rank, ierror)
  call MPI_Get_processor_name(name, length, ierror)
  print '(a,i0,a,a)', 'Fortran: rank ', rank, ' on ', name(1:length)
  call MPI_Finalize(ierror)
end program
